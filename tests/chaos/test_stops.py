"""Ending as asked: what was begun is finished, and the successor goes on from there."""

from tests.chaos.arena import Arena
from tests.chaos.traffic import kept_busy, progress


async def test_a_worker_that_is_told_to_end_finishes_what_it_has_begun(arena: Arena) -> None:
    topic = arena.new_topic()
    worker = await arena.consumer(topic)
    async with kept_busy(arena, topic) as sent:
        for _ in range(3):
            await progress(arena, topic)
            await arena.stop(worker)
            await arena.stack.supervisor.start_process(worker)
    await arena.all_handled_once(topic, sent, within_s=120)
    begun_again = {each: times for each, times in (await arena.tries(topic)).items() if times > 1}
    assert begun_again == {}
    await arena.stop(worker)
