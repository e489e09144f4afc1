"""Receipts on a real database, of which somebody who may do anything alters, removes, reorders or invents what is recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.local.stack import LocalStack
from schemas.digests import canonical_json, sha256_hex
from schemas.money import Money
from streams.core import receipts
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.payments import evidence
from tests.integration.payments.operated import Operated, Paid, register
from tests.support.servers import migrated_database

ENTRY = "journey_id = :journey AND position = "
ITS_PROPOSAL = "proposal_id IN (SELECT proposal_id FROM payments WHERE id = :payment)"


async def findings(operated: Operated, *paid: Paid) -> list[str]:
    found: list[str] = []
    async for examined in evidence.examine(operated.database, [each.journey_id for each in paid]):
        found += [problem for _, problem in examined.problems]
    return found


async def refunded(operated: Operated) -> Paid:
    """Paid and partly given back: six entries."""
    paid = await operated.paid()
    await operated.command(paid, "refund", 500)
    assert await operated.kinds(paid) == [
        "recognised",
        "proposed",
        "approved",
        "provider_answered",
        "command",
        "provider_answered",
    ]
    return paid


async def test_what_nobody_touched_holds(operated: Operated) -> None:
    paid = await refunded(operated)
    reserved = await operated.paid(capture=False)
    await operated.command(reserved, "capture", 1000)
    await operated.command(reserved, "refund", 400)
    await operated.command(reserved, "refund", 600)
    cancelled = await operated.paid(capture=False)
    await operated.command(cancelled, "cancel")
    assert [(await operated.row(each)).state for each in (paid, reserved, cancelled)] == [
        "partially_refunded",
        "refunded",
        "cancelled",
    ]
    assert await findings(operated, paid, reserved, cancelled) == []
    result = await operated.run("receipts", "verify", paid.journey_id, reserved.journey_id)
    assert (result.exit_code, "2 receipts with 16 entries: nothing was altered" in result.output) == (0, True), result.output


def entry_with_digest(position: int, kind: str, content: str) -> str:
    return (
        "INSERT INTO receipt_entries (journey_id, position, kind, content, previous_digest, digest) "
        f"SELECT journey_id, {position}, '{kind}', '{content}', digest, repeat('a', 64) "
        f"FROM receipt_entries WHERE {ENTRY}{position - 1}"
    )


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        (
            ["UPDATE receipt_entries SET content = jsonb_set(content, '{reference}', '\"inv_other\"') WHERE " + ENTRY + "4"],
            "entry 4 was altered",
        ),
        (["UPDATE receipt_entries SET content = '{\"a\": 1.5}' WHERE " + ENTRY + "4"], "entry 4 was altered"),
        (["UPDATE receipt_entries SET content = '[]' WHERE " + ENTRY + "4"], "entry 4 was altered"),
        (["UPDATE receipt_entries SET kind = 'command' WHERE " + ENTRY + "6"], "entry 6 was altered"),
        (["UPDATE receipt_entries SET digest = repeat('b', 64) WHERE " + ENTRY + "3"], "entry 3 was altered"),
        (["UPDATE receipt_entries SET previous_digest = repeat('b', 64) WHERE " + ENTRY + "3"], "entry 3 does not follow"),
        (["DELETE FROM receipt_entries WHERE " + ENTRY + "3"], "entry 3 is missing"),
        (["DELETE FROM receipt_entries WHERE " + ENTRY + "1"], "entry 1 is missing"),
        (
            ["DELETE FROM receipt_entries WHERE journey_id = :journey AND position >= 6"],
            "its entry `provider_answered` is missing",
        ),
        (["DELETE FROM receipt_entries WHERE journey_id = :journey AND position >= 3"], "has no entry `approved`"),
        (["DELETE FROM receipt_entries WHERE journey_id = :journey"], "was proposed, and no entry says so"),
        (
            [
                "UPDATE receipt_entries SET position = 99 WHERE " + ENTRY + "3",
                "UPDATE receipt_entries SET position = 3 WHERE " + ENTRY + "4",
                "UPDATE receipt_entries SET position = 4 WHERE " + ENTRY + "99",
            ],
            "entry 3 does not follow",
        ),
        (
            [
                *(f"UPDATE receipt_entries SET position = {to} WHERE {ENTRY}{to - 1}" for to in (7, 6, 5)),
                entry_with_digest(4, "note", "{}"),
            ],
            "entry 4 was altered",
        ),
    ],
)
async def test_tampering_with_the_chain_is_found(operated: Operated, tampering: list[str], finding: str) -> None:
    paid = await refunded(operated)
    await operated.tamper(*tampering, journey=paid.journey_id)
    found = await findings(operated, paid)
    assert any(finding in problem for problem in found), found
    result = await operated.run("receipts", "verify", paid.journey_id)
    assert result.exit_code == 1
    assert f"{paid.journey_id}: " in result.output and finding in result.output


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        ("UPDATE payments SET state = 'captured', refunded_minor = 0 WHERE id = :payment", "is captured, and its receipt says"),
        ("UPDATE payments SET refunded_minor = 400 WHERE id = :payment", "has 400 given back (minor units, SEK)"),
        ("UPDATE payments SET captured_minor = 1000 WHERE id = :payment", "has 1000 captured"),
        ("UPDATE payments SET total_minor = 2000 WHERE id = :payment", "another amount than the wearer approved"),
        (
            "UPDATE payments SET provider_reference = 'inv_x' || :payment WHERE id = :payment",
            "reference that its receipt",
        ),
        ("UPDATE attempts SET amount_minor = 400 WHERE payment_id = :payment AND kind = 'refund'", "says something else"),
        ("UPDATE attempts SET outcome = 'declined' WHERE payment_id = :payment AND kind = 'refund'", "says something else"),
        ("DELETE FROM attempts WHERE payment_id = :payment AND kind = 'refund'", "gone from the attempts"),
        ("DELETE FROM payments WHERE id = :payment", "gone from the payments"),
        ("UPDATE proposals SET digest = repeat('c', 64) WHERE journey_id = :journey", "are not those its digest was made of"),
        (
            "UPDATE proposals SET terms = jsonb_set(terms, '{total,minor}', '5') WHERE journey_id = :journey",
            "are not those its digest was made of",
        ),
        (
            f"UPDATE approvals SET jws = 'e30.e30.c2ln' WHERE {ITS_PROPOSAL}",
            "is another than the one on record",
        ),
        (
            f"DELETE FROM approvals WHERE {ITS_PROPOSAL}",
            "is another than the one on record",
        ),
    ],
)
async def test_tables_that_say_something_else_are_found(operated: Operated, tampering: str, finding: str) -> None:
    paid = await refunded(operated)
    values = {"payment": paid.payment_id, "journey": paid.journey_id}
    await operated.tamper(tampering, **{name: value for name, value in values.items() if f":{name}" in tampering})
    found = await findings(operated, paid)
    assert any(finding in problem for problem in found), found


async def test_a_chain_that_was_made_anew_does_not_fit_the_checkpoint(operated: Operated, tmp_path: Path) -> None:
    """Whoever can write all tables can make all of them agree; what was kept elsewhere is out of reach."""
    paid = await refunded(operated)
    kept = tmp_path / "kept.json"
    assert (await operated.run("receipts", "checkpoint", "--file", str(kept))).exit_code == 0
    checkpoint = ("receipts", "verify", paid.journey_id, "--checkpoint", str(kept))
    assert (await operated.run(*checkpoint)).exit_code == 0
    async with operated.database.transaction() as connection:
        entries = await receipts.read(connection, paid.journey_id)
    # The refund never was: neither in the chain, which holds without it, nor in the tables.
    await operated.tamper(
        "DELETE FROM receipt_entries WHERE journey_id = :journey AND position > 4",
        "DELETE FROM attempts WHERE payment_id = :payment AND kind = 'refund'",
        "UPDATE payments SET state = 'captured', refunded_minor = 0 WHERE id = :payment",
        journey=paid.journey_id,
        payment=paid.payment_id,
    )
    assert await findings(operated, paid) == []
    result = await operated.run(*checkpoint)
    assert (result.exit_code, "entry 6 is in the checkpoint, and gone" in result.output) == (1, True), result.output
    # And one with another refund in its place.
    previous, rows = entries[3].digest, []
    for entry in entries[4:]:
        content = {**entry.content, "amount_minor": 1}
        digest = receipts.digest_of(paid.journey_id, entry.position, entry.kind, content, previous)
        rows.append((entry.position, entry.kind, json.dumps(content), previous, digest))
        previous = digest
    for number, (position, kind, content_text, before, digest) in enumerate(rows):
        await operated.tamper(
            "INSERT INTO receipt_entries (journey_id, position, kind, content, previous_digest, digest) "
            "VALUES (:journey, :position, :kind, CAST(:content AS jsonb), :before, :digest)",
            journey=paid.journey_id,
            position=position,
            kind=kind,
            content=content_text,
            before=before,
            digest=digest,
        )
        assert number < len(rows)
    async with operated.database.transaction() as connection:
        assert await receipts.verify(connection, paid.journey_id) == []
    result = await operated.run(*checkpoint)
    assert (result.exit_code, "entry 6 is another than in the checkpoint" in result.output) == (1, True), result.output


async def test_a_checkpoint_that_was_altered_is_found_out(operated: Operated, tmp_path: Path) -> None:
    paid = await operated.paid()
    kept = tmp_path / "kept.json"
    await operated.run("receipts", "checkpoint", "--file", str(kept))
    document = json.loads(kept.read_text())
    heads = {name: tuple(head) for name, head in document["heads"].items()}
    assert heads[paid.journey_id][0] == 4
    assert document["root"] == sha256_hex(canonical_json({name: list(head) for name, head in heads.items()}))
    del document["heads"][paid.journey_id]
    kept.write_text(json.dumps(document))
    result = await operated.run("receipts", "verify", paid.journey_id, "--checkpoint", str(kept))
    assert (result.exit_code, "the checkpoint itself was altered" in result.output) == (1, True), result.output
    result = await operated.run("receipts", "checkpoint", "--file", str(kept))
    assert (result.exit_code, "exists" in result.output) == (1, True)


async def test_an_export_is_verified_without_a_database(operated: Operated, tmp_path: Path) -> None:
    paid, other = await refunded(operated), await operated.paid()
    file = tmp_path / "export.json"
    journeys = (paid.journey_id, other.journey_id)
    assert (await operated.run("receipts", "export", *journeys, "--file", str(file))).exit_code == 0
    verify = ("receipts", "verify", "--file", str(file))
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"}
    result = await operated.run(*verify, **nowhere)
    assert (result.exit_code, "2 receipts with 10 entries" in result.output) == (0, True), result.output
    whole = json.loads(file.read_text())
    assert_holds_by_the_words(whole)
    for tampering in (alter, remove_between, remove_last, remove_receipt, swap):
        document = json.loads(json.dumps(whole))
        tampering(document)
        file.write_text(json.dumps(document))
        result = await operated.run(*verify, **nowhere)
        assert result.exit_code == 1, tampering.__name__
        assert "altered" in result.output or "missing" in result.output, result.output


def alter(document: dict[str, Any]) -> None:
    document["receipts"][0]["entries"][2]["content"]["presence"] = "nod"


def remove_between(document: dict[str, Any]) -> None:
    del document["receipts"][0]["entries"][1]


def remove_last(document: dict[str, Any]) -> None:
    del document["receipts"][0]["entries"][-1]


def remove_receipt(document: dict[str, Any]) -> None:
    del document["receipts"][1]
    document["count"] -= 1


def swap(document: dict[str, Any]) -> None:
    entries = document["receipts"][0]["entries"]
    entries[1], entries[2] = entries[2], entries[1]


def assert_holds_by_the_words(document: dict[str, Any]) -> None:
    """What `how_to_verify` says, done with nothing of ours."""
    import hashlib

    def digest(value: object) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    heads = {}
    for receipt in document["receipts"]:
        previous = "0" * 64
        for position, entry in enumerate(receipt["entries"], start=1):
            assert (entry["position"], entry["previous_digest"]) == (position, previous)
            linked = {name: entry[name] for name in ("position", "kind", "content", "previous_digest")}
            previous = digest({"journey_id": receipt["journey_id"], **linked})
            assert entry["digest"] == previous
        heads[receipt["journey_id"]] = [len(receipt["entries"]), previous]
    assert document["root"] == digest(heads)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', "{" * 5000, '{"receipts": NaN}', "\x00"])
async def test_files_that_are_something_else_are_told_so(operated: Operated, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    for option in ("--file", "--checkpoint"):
        result = await operated.run("receipts", "verify", option, str(file))
        assert (result.exit_code, "is not a" in result.output) == (1, True), result.output


async def test_all_of_them_are_verified_some_at_a_time(
    stack: LocalStack, sealer: Sealer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(monkeypatch)
    monkeypatch.setattr(evidence, "_JOURNEYS_AT_ONCE", 3)
    url = await migrated_database(stack.environment["DATABASE_URL"])
    database = Database(create_engine(url))
    operated = Operated(database, url, sealer)
    try:
        paid = [await operated.paid(Money.of(100 + number, "EUR")) for number in range(8)]
        kept = tmp_path / "kept.json"
        assert (await operated.run("receipts", "checkpoint", "--file", str(kept))).exit_code == 0
        assert json.loads(kept.read_text())["count"] == 8
        result = await operated.run("receipts", "verify", "--all", "--json")
        assert json.loads(result.stdout) == {"receipts": 8, "entries": 32, "holds": True, "problems": []}
        # One loses its receipt, one everything: only the checkpoint remembers that.
        gone, forgotten = paid[2], paid[5]
        await operated.tamper("DELETE FROM receipt_entries WHERE journey_id = :journey", journey=gone.journey_id)
        await operated.tamper(
            *(f"DELETE FROM {table} WHERE journey_id = :journey" for table in ("receipt_entries", "payments", "proposals")),
            journey=forgotten.journey_id,
        )
        result = await operated.run("receipts", "verify", "--all", "--json")
        document = json.loads(result.stdout)
        assert (result.exit_code, document["receipts"]) == (1, 7)
        assert {problem["journey_id"] for problem in document["problems"]} == {gone.journey_id}
        result = await operated.run("receipts", "verify", "--checkpoint", str(kept), "--json")
        found = {problem["journey_id"] for problem in json.loads(result.stdout)["problems"]}
        assert (result.exit_code, found) == (1, {gone.journey_id, forgotten.journey_id})
        result = await operated.run("receipts", "export", "--all")
        assert json.loads(result.stdout)["count"] == 6
    finally:
        await database.close()
