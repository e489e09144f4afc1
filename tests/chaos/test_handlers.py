"""A handler that raises, and messages nobody can read: nothing is lost, and the partition moves on."""

from pathlib import Path

from schemas.events import to_kafka
from tests.chaos.arena import Arena, event
from tests.support.waiting import eventually


async def test_a_handler_that_raises_loses_nothing(arena: Arena) -> None:
    """Neither the event that failed nor those around it, of the same key and of others."""
    topic = arena.new_topic()
    good = [event("/plain", device) for device in range(40)]
    stumbling = [event("/stumbling", device) for device in range(40)]
    faulty = [event("/faulty", device) for device in range(5)]
    mixed = sorted([*good, *stumbling, *faulty], key=lambda each: hash(each.id))
    worker = await arena.consumer(topic)
    await arena.send(topic, mixed)

    await arena.all_handled_once(topic, [*good, *stumbling])
    tries = await arena.tries(topic)
    # Whoever shares a transaction with one that fails is tried once more.
    assert min(tries[each.id] for each in stumbling) >= 2
    assert min(tries[each.id] for each in faulty) >= 3
    assert list((await arena.dead_letters(topic)).values()) == ["handler-failed"] * len(faulty)
    assert arena.stack.supervisor.status(worker).restarts == 0
    await arena.stop(worker)


async def test_a_worker_that_cannot_go_on_leaves_its_events_to_its_successor(arena: Arena, tmp_path: Path) -> None:
    """What is away for longer than the worker's patience crashes it. It acknowledges nothing it has not done."""
    topic, repaired = arena.new_topic(), tmp_path / "repaired"
    sent = [event("/broken" if number == 7 else "/plain", number) for number in range(60)]
    worker = await arena.consumer(topic, "0.5", CHAOS_REPAIRED=str(repaired))
    await arena.send(topic, sent)

    async def crashed_twice() -> bool:
        return arena.stack.supervisor.status(worker).restarts >= 2

    await eventually(crashed_twice, within_s=180)
    assert arena.behind(topic) > 0
    assert str(sent[7].id) not in await arena.rows(topic)
    repaired.touch()
    await arena.all_handled_once(topic, sent)
    assert await arena.dead_letters(topic) == {}
    await arena.stop(worker)


async def test_a_poison_message_becomes_a_dead_letter_and_the_partition_moves_on(arena: Arena) -> None:
    topic = arena.new_topic()
    before, after = event("/plain", 1), event("/plain", 2)
    headers, value = to_kafka(event("/plain", 3))
    poison = {
        "no event at all": (None, []),
        "headers that are no text": (b"{}", [("ce_id", b"\xff\xfe")]),
        "an attribute nobody knows": (value, [*headers, ("ce_surprise", b"1")]),
        "data that is no JSON": (b"\x00\x01", headers),
        "data of another shape": (b'{"state": "asleep"}', headers),
    }
    worker = await arena.consumer(topic)

    async def put(content: bytes | None, with_headers: list[tuple[str, bytes]]) -> int:
        record = await arena.producer.deliver(
            topic.name, value=content, key=b"one key for all", headers=with_headers, partition=0
        )
        return int(record.offset)

    good_headers, good_value = to_kafka(before)
    await put(good_value, good_headers)
    offsets = [await put(content, with_headers) for content, with_headers in poison.values()]
    good_headers, good_value = to_kafka(after)
    await put(good_value, good_headers)

    await arena.all_handled_once(topic, [before, after])
    reasons = await arena.dead_letters(topic)
    # The last two have the same id, as a message that is sent again has: one dead letter is enough for both.
    assert [reasons.get((0, offset)) for offset in offsets] == ["message-malformed"] * 3 + ["event-invalid", None]
    assert arena.stack.supervisor.status(worker).restarts == 0
    await arena.stop(worker)
