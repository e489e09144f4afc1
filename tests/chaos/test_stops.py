"""Ending as asked: quickly, with nothing lost and nothing left in hand."""

import time

from tests.chaos.arena import Arena
from tests.chaos.test_kills import kept_busy, progress


async def test_a_worker_that_is_told_to_end_finishes_what_it_has_begun(arena: Arena) -> None:
    topic = arena.new_topic()
    worker = await arena.consumer(topic)
    async with kept_busy(arena, topic) as sent:
        for _ in range(3):
            await progress(arena, topic)
            started = time.monotonic()
            await arena.stop(worker)
            print("STOP", time.monotonic() - started)
            await arena.stack.supervisor.start_process(worker)
    await arena.all_handled_once(topic, sent, within_s=120)
    await arena.stop(worker)
    tries = await arena.tries(topic)
    print(sum(tries.values()) - len(tries))
