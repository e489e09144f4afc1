"""Identifiers: typed, sortable, and never taken for one another."""

import re
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.ids import DeviceId, EventId, Id, JourneyId, PaymentId

KINDS = Id.__subclasses__()
kinds = st.sampled_from(KINDS)


def pattern(kind: type[Id]) -> re.Pattern[str]:
    return re.compile(TypeAdapter(kind).json_schema()["pattern"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_is_read_back_as_it_is(kind: type[Id]) -> None:
    made = kind.new()
    assert kind(str(made)) == made
    assert made.startswith(f"{kind.prefix}_")
    assert pattern(kind).fullmatch(made)
    assert TypeAdapter(kind).validate_json(f'"{made}"') == made


def test_no_two_kinds_share_a_prefix() -> None:
    assert len({kind.prefix for kind in KINDS}) == len(KINDS)


@given(kinds, st.uuids())
def test_a_uuid_and_back_is_the_same(kind: type[Id], value: UUID) -> None:
    assert kind.from_uuid(value).uuid == value


@given(st.lists(st.uuids(), min_size=2, max_size=20))
def test_text_sorts_as_the_uuids_do(values: list[UUID]) -> None:
    assert sorted(map(EventId.from_uuid, values)) == [EventId.from_uuid(value) for value in sorted(values)]


def test_later_ones_sort_behind_earlier_ones() -> None:
    made = [EventId.new() for _ in range(1000)]
    assert [each.uuid.int >> 80 for each in made] == sorted(each.uuid.int >> 80 for each in made)
    assert len(set(made)) == len(made)


@given(kinds, kinds)
def test_one_kind_is_refused_as_another(kind: type[Id], other: type[Id]) -> None:
    made = other.new()
    if kind is other:
        assert kind(made) == made
    else:
        with pytest.raises(ValueError, match=f"{kind.prefix}_"):
            kind(made)
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(made)


@given(st.text(max_size=60) | st.text(alphabet="0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26).map("evt_".__add__))
@example("evt_")
@example("evt_8zzzzzzzzzzzzzzzzzzzzzzzzz")
@example("EVT_01h455vb4pex5vsknk084sn02q")
@example("evt_01H455VB4PEX5VSKNK084SN02Q")
@example("evt_01h455vb4pex5vsknk084sn02q\n")
@example("evt_evt_01h455vb4pex5vsknk084sn02q")
def test_what_is_accepted_fits_the_published_pattern(text: str) -> None:
    try:
        accepted = EventId(text)
    except ValueError:
        assert not pattern(EventId).fullmatch(text)
    else:
        assert accepted == text
        assert pattern(EventId).fullmatch(text)


@pytest.mark.parametrize("value", [None, 1, b"evt_01h455vb4pex5vsknk084sn02q", ["evt"], {}])
def test_only_text_is_an_id(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(EventId).validate_python(value)


def test_kinds_are_told_apart_by_type() -> None:
    assert not isinstance(PaymentId.new(), JourneyId)
    assert isinstance(DeviceId.new(), str)
