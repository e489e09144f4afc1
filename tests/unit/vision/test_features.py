"""Features come back from their bytes as they were, without copies; anything else is refused, whatever it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.triton.vision.features import ALIGNMENT, Features


def made(count: int = 5, dimension: int = 3, colour: tuple[int, int] = (7, 5)) -> Features:
    random = np.random.default_rng(count * 100 + dimension)
    return Features(
        size=(400, 300),
        points=random.random((count, 4), np.float32),
        descriptors=random.integers(0, 256, (count, 128), np.uint8),
        colour=random.integers(0, 256, (*colour, 3), np.uint8),
        embedding=random.random(dimension, np.float32),
    )


@given(count=st.integers(0, 40), dimension=st.integers(0, 40), colour=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_they_come_back_as_they_were(count: int, dimension: int, colour: tuple[int, int]) -> None:
    features = made(count, dimension, colour)
    written = features.to_bytes()
    read = Features.from_bytes(written)
    assert len(written) % ALIGNMENT == 0
    assert read.size == features.size
    for name in ("points", "descriptors", "colour", "embedding"):
        before, after = getattr(features, name), getattr(read, name)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)


def test_they_look_into_the_buffer_and_copy_nothing() -> None:
    buffer = bytearray(made().to_bytes())
    read = Features.from_bytes(buffer)
    x = float(read.points[0, 0])
    buffer[32:36] = np.float32(x + 1).tobytes()
    assert read.points[0, 0] == np.float32(x + 1)


def test_what_lies_in_a_row_stays_aligned() -> None:
    first = made(3, 1).to_bytes()
    whole = np.frombuffer(first + made(2, 0).to_bytes(), np.uint8)
    assert Features.from_bytes(memoryview(whole)[len(first) :]).points.flags.aligned


@given(position=st.integers(0, 10_000), to=st.integers(0, 255))
def test_one_other_byte_is_refused(position: int, to: int) -> None:
    written = bytearray(made().to_bytes())
    position %= len(written)
    if written[position] == to:
        return
    written[position] = to
    # Width and height are the only bytes of the header that no other byte has to fit.
    if 8 <= position < 16 and written[8:12] != bytes(4) and written[10:12] == bytes(2) and written[14:16] == bytes(2):
        return
    with pytest.raises(ValueError):
        Features.from_bytes(written)


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(noise: bytes) -> None:
    with pytest.raises(ValueError):
        Features.from_bytes(noise)


@pytest.mark.parametrize("length", [0, 31, 32, 700])
def test_truncated_ones_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="truncated"):
        Features.from_bytes(made().to_bytes()[:length])


def test_numbers_that_are_none_are_refused() -> None:
    features = made()
    features.points[2, 1] = np.nan
    with pytest.raises(ValueError, match="numbers that are none"):
        Features.from_bytes(features.to_bytes())


def test_arrays_of_another_kind_are_refused() -> None:
    good = made()
    with pytest.raises(ValueError, match="descriptors is"):
        Features(good.size, good.points, good.descriptors[1:], good.colour, good.embedding)
    with pytest.raises(ValueError, match="points is float64"):
        Features(good.size, good.points.astype(np.float64), good.descriptors, good.colour, good.embedding)  # type: ignore[arg-type]
