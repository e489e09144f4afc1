from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from streams.core.bootstrap import composed
from streams.core.database import Database
from streams.core.settings import Settings
from streams.core.statements import keep_order
from streams.gateway import merchants, problems
from streams.payments.accounts import Accounts
from tests.integration.webhooks.world import SECRET_KEY, World


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    # Without a pool, because schemathesis runs the application in event loops of its own.
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    keep_order(engine)
    yield World(Database(engine))
    await engine.dispose()


@pytest.fixture
async def app(world: World) -> AsyncIterator[FastAPI]:
    """The merchants' API alone, as the gateway serves it."""
    settings = Settings(secret_key=SecretStr(SECRET_KEY), _env_file=None)
    async with composed(settings, database=world.database) as parts:
        app = FastAPI(title="Augenblick", version="1")
        problems.install(app)
        app.include_router(merchants.router(parts, Accounts(parts.sealer())))
        merchants.describe_webhooks(app)
        yield app
