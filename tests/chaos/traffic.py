"""Work that does not run out while something is done to those who do it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.events import Event
from schemas.topics import Topic
from tests.chaos.arena import Arena, event
from tests.support.waiting import eventually

BATCH = 20
AHEAD = 400


@asynccontextmanager
async def kept_busy(arena: Arena, topic: Topic) -> AsyncIterator[list[Event]]:
    """Within the block there is always more to do than is done; afterwards the list holds all that was sent."""
    sent, over = list[Event](), asyncio.Event()

    async def send() -> None:
        while not over.is_set():
            if len(sent) - await arena.done(topic) < AHEAD:
                batch = [event("/slow", number) for number in range(BATCH)]
                await arena.send(topic, batch)
                sent.extend(batch)

    sending = asyncio.create_task(send())
    try:
        yield sent
    finally:
        over.set()
        await sending


async def progress(arena: Arena, topic: Topic, *, within_s: float = 120.0) -> None:
    before = await arena.done(topic)

    async def more_is_done() -> bool:
        return await arena.done(topic) > before + 10

    await eventually(more_is_done, within_s=within_s, what="progress")
