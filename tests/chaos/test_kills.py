"""SIGKILL, at any moment."""

import asyncio
import random

from schemas.events import Event
from tests.chaos.arena import Arena, event
from tests.support.waiting import eventually

KILLS = 20
BATCH = 20


async def test_twenty_kills_with_events_in_flight_lose_nothing_and_double_nothing(arena: Arena) -> None:
    """Two workers share a topic; again and again one of them is killed in the middle of its work."""
    topic, sent = arena.new_topic(), list[Event]()
    workers = [await arena.consumer(topic, instance="0"), await arena.consumer(topic, instance="1")]
    over = asyncio.Event()

    async def keep_busy() -> None:
        """There is always more to do than is done."""
        while not over.is_set():
            handled = sum((await arena.rows(topic)).values())
            if len(sent) - handled < 400:
                batch = [event("/slow", number) for number in range(BATCH)]
                await arena.send(topic, batch)
                sent.extend(batch)

    busy = asyncio.create_task(keep_busy())
    before = len(arena.killed)
    while len(arena.killed) - before < KILLS:
        worker = random.choice(workers)
        await arena.back(worker)
        done = sum((await arena.rows(topic)).values())

        async def more_is_done(done: int = done) -> bool:
            return sum((await arena.rows(topic)).values()) > done + 10

        await eventually(more_is_done, within_s=60, what="progress")
        await arena.kill(worker)
    over.set()
    await busy

    await arena.all_handled_once(topic, sent, within_s=120)
    assert len(set(arena.killed)) - before >= KILLS
    # Otherwise nothing was in flight, and nothing was proven.
    again = sum(times - 1 for times in (await arena.tries(topic)).values())
    assert again >= KILLS, f"only {again} events were in flight when a worker was killed"
    assert await arena.dead_letters(topic) == {}
    await arena.stop(*workers)
