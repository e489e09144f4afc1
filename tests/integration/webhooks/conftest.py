import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.http import HttpClient
from infra.local.stack import LocalStack
from streams.core.database import Database, create_engine
from streams.webhooks.dispatcher import Dispatcher
from tests.integration.webhooks.world import Receiver, World
from tests.support.servers import migrated_database


@pytest.fixture(scope="session")
async def own_database_url(stack: LocalStack) -> str:
    """Not the shared one: a dispatcher sends whatever is due in its database, and every test begins with an empty one."""
    return await migrated_database(stack.environment["DATABASE_URL"])


@pytest.fixture
async def world(own_database_url: str) -> AsyncIterator[World]:
    database = Database(create_engine(own_database_url, connections=20))
    world = World(database)
    await world.clear()
    yield world
    await database.close()


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiver]:
    receiver = Receiver(tmp_path)
    await receiver.start()
    yield receiver
    receiver.stop()


Dispatching = Callable[..., contextlib.AbstractAsyncContextManager[Dispatcher]]


@pytest.fixture
def dispatching(world: World) -> Dispatching:
    """A dispatcher that runs in this process, inside the `with` block."""

    @asynccontextmanager
    async def running(**options: Any) -> AsyncIterator[Dispatcher]:
        async with HttpClient(allow_private=True) as client:
            dispatcher = Dispatcher(world.database, client, world.sealer, **options)
            work: Coroutine[Any, Any, None] = dispatcher.run()
            task = asyncio.create_task(work)
            try:
                yield dispatcher
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    return running
