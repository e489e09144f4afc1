"""SIGKILL, at any moment; and workers that come and go."""

import asyncio
import random

from tests.chaos.arena import Arena
from tests.chaos.traffic import kept_busy, progress

KILLS = 20


async def test_twenty_kills_with_events_in_flight_lose_nothing_and_double_nothing(arena: Arena) -> None:
    """Two workers share a topic; again and again one of them is killed in the middle of its work."""
    topic = arena.new_topic()
    workers = [await arena.consumer(topic, instance="0"), await arena.consumer(topic, instance="1")]
    before = len(arena.killed)
    async with kept_busy(arena, topic) as sent:
        while len(arena.killed) - before < KILLS:
            worker = random.choice(workers)
            await arena.back(worker)
            await progress(arena, topic)
            # Right after a commit, which is what progress shows, nothing would be in hand.
            await asyncio.sleep(random.uniform(0.03, 0.15))
            await arena.kill(worker)

    await arena.all_handled_once(topic, sent, within_s=120)
    assert len(set(arena.killed[before:])) >= KILLS
    # Otherwise nothing was in flight, and nothing was proven.
    again = sum(times - 1 for times in (await arena.tries(topic)).values())
    assert again >= KILLS, f"only {again} events were in flight when a worker was killed"
    assert await arena.dead_letters(topic) == {}
    await arena.stop(*workers)


async def test_partitions_change_hands_in_the_middle_of_work(arena: Arena) -> None:
    """A second worker joins, and takes over some partitions; then the first goes for good, and the second takes all."""
    topic = arena.new_topic()
    first = await arena.consumer(topic, instance="0", CHAOS_SESSION_S="10")  # then it is believed to be gone
    async with kept_busy(arena, topic) as sent:
        await progress(arena, topic)
        second = await arena.consumer(topic, instance="1")
        await progress(arena, topic)
        await arena.stop(first)
        left_at = await arena.done(topic)

    await arena.all_handled_once(topic, sent, within_s=180)
    assert len(sent) > left_at, "the first left nothing to be taken over"
    assert await arena.dead_letters(topic) == {}
    await arena.stop(second)
