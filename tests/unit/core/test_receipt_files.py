"""Checkpoints and exports: the root is the same however it is made, and says of whatever was changed."""

import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.digests import canonical_json, sha256_hex
from schemas.errors import Misconfigured
from schemas.ids import JourneyId
from streams.core import receipt_files
from streams.core.receipts import FIRST_PREVIOUS_DIGEST, Entry, Head, digest_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def receipt(*contents: dict[str, object]) -> tuple[str, list[Entry]]:
    journey_id, entries, previous = JourneyId.new(), [], FIRST_PREVIOUS_DIGEST
    for position, content in enumerate(contents, start=1):
        digest = digest_of(journey_id, position, "noted", content, previous)
        entries.append(Entry(position, "noted", content, previous, digest))
        previous = digest
    return journey_id, entries


async def one_by_one(heads: Sequence[Head]) -> AsyncIterator[Head]:
    for head in heads:
        yield head


async def test_a_root_made_head_by_head_is_that_of_the_whole(tmp_path: Path) -> None:
    heads = [Head(str(JourneyId.new()), number, sha256_hex(bytes([number]))) for number in range(1, 40)]
    heads.sort(key=lambda head: head.journey_id)
    for some in (heads, heads[:1], []):
        out = io.StringIO()
        root = await receipt_files.write_checkpoint(out, one_by_one(some), NOW)
        whole = {head.journey_id: [head.position, head.digest] for head in some}
        assert (root.count, root.hexdigest()) == (len(some), sha256_hex(canonical_json(whole)))
        file = tmp_path / "checkpoint.json"
        file.write_text(out.getvalue())
        checkpoint = receipt_files.read_checkpoint(file)
        assert {name: list(head) for name, head in checkpoint.heads.items()} == whole
        assert (checkpoint.made_at, checkpoint.count, checkpoint.root) == (NOW, len(some), root.hexdigest())
        assert receipt_files.problems_of_checkpoint(checkpoint) == []


@pytest.mark.parametrize("changed", ["root", "count", "digest", "position", "added", "removed"])
async def test_a_checkpoint_shows_that_it_was_changed(tmp_path: Path, changed: str) -> None:
    heads = [Head("jrn_a", 3, "a" * 64), Head("jrn_b", 4, "b" * 64)]
    out = io.StringIO()
    await receipt_files.write_checkpoint(out, one_by_one(heads), NOW)
    document = json.loads(out.getvalue())
    match changed:
        case "root":
            document["root"] = "0" * 64
        case "count":
            document["count"] = 3
        case "digest":
            document["heads"]["jrn_a"][1] = "c" * 64
        case "position":
            document["heads"]["jrn_a"][0] = 2
        case "added":
            document["heads"]["jrn_c"] = [1, "c" * 64]
        case "removed":
            del document["heads"]["jrn_a"]
    file = tmp_path / "checkpoint.json"
    file.write_text(json.dumps(document))
    assert receipt_files.problems_of_checkpoint(receipt_files.read_checkpoint(file)) != []


async def test_an_export_has_everything_and_every_character(tmp_path: Path) -> None:
    made = [receipt({"text": 'Käse 奶酪 🧀 \u2028 "quoted"'}, {"amount": 2**53 - 1}), receipt({"empty": {}, "none": None})]

    async def some() -> AsyncIterator[tuple[str, Sequence[Entry]]]:
        for each in made:
            yield each

    out, file = io.StringIO(), tmp_path / "export.json"
    assert await receipt_files.write_export(out, some(), NOW) == 2
    file.write_text(out.getvalue(), encoding="utf-8")
    assert receipt_files.verify_export(file) == (2, 3, [])
    assert json.loads(out.getvalue())["how_to_verify"] == list(receipt_files.HOW_TO_VERIFY)

    kept = tmp_path / "checkpoint.json"
    heads = [Head(journey_id, entries[-1].position, entries[-1].digest) for journey_id, entries in made]
    with kept.open("w") as checkpoint:
        await receipt_files.write_checkpoint(checkpoint, one_by_one(sorted(heads, key=lambda head: head.journey_id)), NOW)
    assert receipt_files.verify_export(file, receipt_files.read_checkpoint(kept)) == (2, 3, [])
    # The export of a receipt that was cut off after the checkpoint was made.
    journey_id, entries = made[0]
    made[0] = (journey_id, entries[:1])
    out = io.StringIO()
    await receipt_files.write_export(out, some(), NOW)
    file.write_text(out.getvalue(), encoding="utf-8")
    assert receipt_files.verify_export(file) == (2, 2, [])
    [(about, problem)] = receipt_files.verify_export(file, receipt_files.read_checkpoint(kept))[2]
    assert (about, "entry 2 is in the checkpoint, and gone" in problem) == (journey_id, True)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        receipt_files.read_checkpoint(tmp_path / "nothing.json")
    with pytest.raises(Misconfigured, match="cannot be read"):
        receipt_files.verify_export(tmp_path)
