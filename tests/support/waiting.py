"""Waiting for what happens elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def eventually(look: Callable[[], Awaitable[Found]], *, within_s: float = 60.0, what: str = "it") -> Found:
    """The first true result of `look`. An AssertionError with the last one when it never comes."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = await look()
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what} did not happen within {within_s:g} s; last seen: {found!r}")
        await asyncio.sleep(0.05)
