"""Receipts outside the database: checkpoints, which show what is missing later, and exports, which can be verified without us.

A chain shows what was altered within it. That its last entries or all of it were removed only shows who remembers that they were
there: the tables beside it (streams/payments/evidence.py), and a checkpoint that is kept where whoever can change the database
cannot. Files are written as they are read, so that their size does not matter; a checkpoint or export that is held against
something is read as a whole.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from schemas.digests import canonical_json
from schemas.errors import Misconfigured
from streams.core import receipts
from streams.core.database import Database
from streams.core.receipts import FIRST_PREVIOUS_DIGEST, Entry, Head

_AT_ONCE = 500

_CHECKPOINT: Literal["augenblick receipts checkpoint 1"] = "augenblick receipts checkpoint 1"
_EXPORT: Literal["augenblick receipts export 1"] = "augenblick receipts export 1"

HOW_TO_VERIFY = (
    "Canonical JSON is UTF-8 with sorted keys (by UTF-16 code units), without spaces, and with integers only (RFC 8785).",
    "An entry's digest is SHA-256, in lower-case hexadecimal, over the canonical JSON of an object with five keys: journey_id",
    "(the receipt's), position, kind, content and previous_digest (the entry's own).",
    "Positions count 1, 2, 3 without a gap. previous_digest is the digest of the entry before; of the first it is 64 zeros.",
    "A receipt holds if every entry has the digest that is computed so: nothing was altered, removed between or put between.",
    "root is SHA-256 over the canonical JSON of an object with a key for every journey, whose value is the list of the position",
    "and the digest of its last entry. A checkpoint that was kept elsewhere has the same, and shows what was removed since.",
    "An entry `approved` holds the wearer's yes: a JWS (EdDSA) by the device's key over the digest of what was proposed.",
)
"""In words, for whoever has the file and not us. A test does what they say."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(_File):
    """`heads`: of every receipt there was, the position and digest of its last entry."""

    format: Literal["augenblick receipts checkpoint 1"]
    made_at: AwareDatetime
    count: int
    heads: dict[str, tuple[int, str]]
    root: str


class _ExportedEntry(_File):
    position: int
    kind: str
    content: Any
    previous_digest: str
    digest: str


class _ExportedReceipt(_File):
    journey_id: str
    entries: tuple[_ExportedEntry, ...]


class _Export(_File):
    format: Literal["augenblick receipts export 1"]
    made_at: AwareDatetime
    how_to_verify: tuple[str, ...]
    first_previous_digest: str
    receipts: tuple[_ExportedReceipt, ...]
    count: int
    root: str


class Root:
    """SHA-256 over the canonical JSON of {journey: [position, digest]}, head by head, in the order of the journeys."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"{")
        self.count = 0

    def add(self, head: Head) -> None:
        comma = b"," if self.count else b""
        self._hash.update(comma + canonical_json(head.journey_id) + b":" + canonical_json([head.position, head.digest]))
        self.count += 1

    def hexdigest(self) -> str:
        whole = self._hash.copy()
        whole.update(b"}")
        return whole.hexdigest()


# Checkpoints.


async def write_checkpoint(out: TextIO, heads: AsyncIterator[Head], made_at: datetime) -> Root:
    root = Root()
    out.write(f'{{"format": {json.dumps(_CHECKPOINT)}, "made_at": {json.dumps(made_at.isoformat())},\n"heads": {{')
    async for head in heads:
        separator = "," if root.count else ""
        root.add(head)
        out.write(f"{separator}\n{json.dumps(head.journey_id)}: {json.dumps([head.position, head.digest])}")
    out.write(f'}},\n"count": {root.count}, "root": {json.dumps(root.hexdigest())}}}\n')
    return root


def read_checkpoint(file: Path) -> Checkpoint:
    """Raises Misconfigured where it is none."""
    return _read(file, Checkpoint, "a checkpoint of `augenblick receipts checkpoint`")


def problems_of_checkpoint(checkpoint: Checkpoint) -> list[str]:
    """What is wrong with the file itself."""
    if checkpoint.count == len(checkpoint.heads) and checkpoint.root == _root_of(checkpoint.heads):
        return []
    return ["the checkpoint itself was altered: its root is another"]


async def against_checkpoint(
    database: Database, checkpoint: Checkpoint, journey_ids: Sequence[str] | None = None
) -> AsyncIterator[tuple[str, str]]:
    """Journeys (all, or these) of which the checkpoint has something that is not there any more, each with what is wrong."""
    known = (
        checkpoint.heads if journey_ids is None else {id: checkpoint.heads[id] for id in journey_ids if id in checkpoint.heads}
    )
    names = list(known)
    for start in range(0, len(names), _AT_ONCE):
        part = {name: known[name] for name in names[start : start + _AT_ONCE]}
        async with database.transaction() as connection:
            there = await receipts.at_positions(connection, [(name, position) for name, (position, _) in part.items()])
        for name, problem in _missing(part, there):
            yield name, problem


def _missing(heads: Mapping[str, tuple[int, str]], there: Mapping[tuple[str, int], str]) -> list[tuple[str, str]]:
    found = []
    for journey_id, (position, digest) in heads.items():
        seen = there.get((journey_id, position))
        if seen is None:
            found.append((journey_id, f"entry {position} is in the checkpoint, and gone: it was removed, with what followed"))
        elif seen != digest:
            found.append((journey_id, f"entry {position} is another than in the checkpoint"))
    return found


def _root_of(heads: Mapping[str, tuple[int, str]]) -> str:
    try:
        return hashlib.sha256(canonical_json({name: list(head) for name, head in heads.items()})).hexdigest()
    except ValueError:
        return ""


# Exports.


async def write_export(out: TextIO, found: AsyncIterator[tuple[str, Sequence[Entry]]], made_at: datetime) -> int:
    """`found`: journeys with their entries. Returns how many."""
    heads: dict[str, tuple[int, str]] = {}
    head = {
        "format": _EXPORT,
        "made_at": made_at.isoformat(),
        "how_to_verify": HOW_TO_VERIFY,
        "first_previous_digest": FIRST_PREVIOUS_DIGEST,
    }
    out.write(json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + ',\n "receipts": [')
    async for journey_id, entries in found:
        separator = "," if heads else ""
        heads[journey_id] = (entries[-1].position, entries[-1].digest)
        receipt = {"journey_id": journey_id, "entries": [vars(entry) for entry in entries]}
        out.write(f"{separator}\n{json.dumps(receipt, ensure_ascii=False)}")
    out.write(f'],\n "count": {len(heads)},\n "root": {json.dumps(_root_of(heads))}\n}}\n')
    return len(heads)


def verify_export(file: Path, checkpoint: Checkpoint | None = None) -> tuple[int, int, list[tuple[str | None, str]]]:
    """How many receipts and entries it has, and what is wrong, with the journey where it is about one. With a checkpoint also
    whether the exported receipts have all that the checkpoint knows of them. Needs nothing of ours but the file. Raises
    Misconfigured where it is none."""
    export = _read(file, _Export, "an export of `augenblick receipts export`")
    found: list[tuple[str | None, str]] = []
    heads: dict[str, tuple[int, str]] = {}
    digests: dict[tuple[str, int], str] = {}
    for receipt in export.receipts:
        entries = [Entry(**vars(entry)) for entry in receipt.entries]
        found += [(receipt.journey_id, problem) for problem in receipts.problems(receipt.journey_id, entries)]
        if receipt.journey_id in heads:
            found.append((receipt.journey_id, "the export has this receipt twice"))
        heads[receipt.journey_id] = (entries[-1].position, entries[-1].digest) if entries else (0, "")
        digests |= {(receipt.journey_id, entry.position): entry.digest for entry in entries}
    if export.count != len(heads) or export.root != _root_of(heads):
        found.append((None, "the export is not complete, or was altered: its root is another"))
    if checkpoint is not None:
        known = {journey_id: head for journey_id, head in checkpoint.heads.items() if journey_id in heads}
        found += _missing(known, digests)
    return len(export.receipts), len(digests), found


FileShape = TypeVar("FileShape", bound=_File)


def _read(file: Path, shape: type[FileShape], what: str) -> FileShape:
    try:
        return shape.model_validate_json(file.read_bytes())
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise Misconfigured(f"{file} is not {what}: {where or 'it'}: {first['msg']}.") from None
