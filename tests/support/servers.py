"""Real components for tests, each started when first asked for."""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from infra.local.stack import LocalStack
from streams.core.migrate import move_to

IN_CI = bool(os.environ.get("CI"))


def missing(what: str, remedy: str) -> None:
    """Skips the test on a developer's machine. In CI nothing may be missing: there it fails."""
    text = f"{what} is not available: {remedy}"
    if IN_CI:
        pytest.fail(text)
    pytest.skip(text)


def local_stack(root: Path, *components: str, configured: dict[str, str] | None = None) -> LocalStack:
    """Addresses in the environment are not looked at: tests that kill servers must not be let loose on somebody's own."""
    return LocalStack(root, components=components, configured=configured or {})


def need_everything(stack: LocalStack) -> LocalStack:
    """The stack, if all its parts are real; a note tells of one that is not."""
    if stack.notes:
        missing("Java with Maven", " ".join(stack.notes))
    return stack


async def new_database(stack_url: str) -> str:
    """A new, empty database on the server of `stack_url`; returns its URL, postgresql://…"""
    name = f"test_{uuid4().hex[:12]}"
    url = make_url(stack_url).set(drivername="postgresql")
    async with await psycopg.AsyncConnection.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return url.set(database=name).render_as_string(hide_password=False)


async def migrated_database(stack_url: str) -> str:
    """The same, built by the migrations."""
    url = await new_database(stack_url)
    await asyncio.to_thread(move_to, url)
    return url
