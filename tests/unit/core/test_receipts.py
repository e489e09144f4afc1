"""A receipt that was tampered with shows it. (The database refuses to; see tests/integration.)"""

from dataclasses import replace

import pytest

from schemas.ids import JourneyId
from streams.core.receipts import FIRST_PREVIOUS_DIGEST, Entry, digest_of, problems

JOURNEY = JourneyId.new()


def chain(*contents: dict[str, object]) -> list[Entry]:
    entries, previous_digest = [], FIRST_PREVIOUS_DIGEST
    for position, content in enumerate(contents, start=1):
        digest = digest_of(JOURNEY, position, "noted", content, previous_digest)
        entries.append(Entry(position, "noted", content, previous_digest, digest))
        previous_digest = digest
    return entries


ENTRIES = chain({"amount": 1}, {"amount": 2}, {"amount": 3})


def test_an_untouched_receipt_holds() -> None:
    assert problems(JOURNEY, ENTRIES) == []
    assert problems(JOURNEY, []) == []


@pytest.mark.parametrize(
    ("tampered", "problem"),
    [
        ([replace(ENTRIES[0], content={"amount": 9}), *ENTRIES[1:]], "entry 1 was altered"),
        ([replace(ENTRIES[0], kind="other"), *ENTRIES[1:]], "entry 1 was altered"),
        ([replace(ENTRIES[0], content={"amount": 1.5}), *ENTRIES[1:]], "entry 1 was altered"),
        ([ENTRIES[0], ENTRIES[2]], "entry 2 is missing"),
        (ENTRIES[1:], "entry 1 is missing"),
        ([ENTRIES[0], chain({"amount": 9}, {"amount": 2})[1], ENTRIES[2]], "entry 2 does not follow"),
    ],
)
def test_what_was_changed_is_found(tampered: list[Entry], problem: str) -> None:
    assert problem in problems(JOURNEY, tampered)[0]


def test_another_journeys_entries_do_not_fit() -> None:
    assert problems(JourneyId.new(), ENTRIES)
