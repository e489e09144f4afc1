"""What is decoded, and what is refused before it costs anything."""

import io
import tracemalloc
from time import perf_counter

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from infra.triton.vision import frames
from infra.triton.vision.frames import UnreadableFrame, decode
from infra.triton.vision.options import Deadline, OptionsRefused, parse
from tests.support.hostile_frames import hostile, jpeg, many_scans

HOSTILE = hostile()
HONEST = jpeg((64, 48))


def sideways() -> bytes:
    """The left half dark, and a note that it is to be turned by a quarter before it is looked at."""
    picture = Image.new("L", (64, 48), 255)
    picture.paste(0, (0, 0, 32, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    written = io.BytesIO()
    picture.save(written, "JPEG", exif=exif)
    return written.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_those_of_the_picture(progressive: bool) -> None:
    encoded = jpeg((64, 48), progressive=progressive)
    colour, grey = decode(encoded), decode(encoded, grey=True)
    assert colour.shape == (48, 64, 3) and grey.shape == (48, 64)
    assert colour.dtype == grey.dtype == numpy.uint8 and colour.flags.c_contiguous and grey.flags.c_contiguous
    wanted = numpy.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), dtype=int)
    assert numpy.abs(colour[..., ::-1] - wanted).mean() < 2, "BGR"


def test_bytes_may_come_as_a_tensor() -> None:
    tensor = numpy.frombuffer(HONEST, dtype=numpy.uint8)
    assert (decode(tensor) == decode(HONEST)).all()


def test_frames_are_upright_and_catalogue_pictures_are_turned() -> None:
    frame = decode(sideways(), grey=True)
    assert frame.shape == (48, 64) and frame[:, :30].mean() < 20
    picture = decode(sideways(), grey=True, orient=True)
    assert picture.shape == (64, 48) and picture[:30].mean() < 20


def test_what_follows_a_catalogue_picture_is_passed_over() -> None:
    appended = HONEST + b"a film of the same" * 100
    with pytest.raises(UnreadableFrame, match="goes on"):
        decode(appended)
    assert (decode(appended, orient=True) == decode(HONEST)).all()


def test_a_camera_may_pad() -> None:
    assert decode(HONEST + b"\0" * frames.PADDING).shape == (48, 64, 3)


def test_a_progressive_picture_may_have_as_many_scans_as_one_has() -> None:
    assert decode(many_scans(jpeg((64, 48), progressive=True), 20)).shape == (48, 64, 3)


@pytest.mark.parametrize("encoded", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("orient", [False, True])
def test_harm_is_refused_at_no_cost(encoded: bytes, orient: bool) -> None:
    behind = encoded.startswith(jpeg())
    if orient and behind:
        return  # that is allowed there; see above
    tracemalloc.start()
    began = perf_counter()
    try:
        with pytest.raises(UnreadableFrame) as refused:
            decode(encoded, orient=orient)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert perf_counter() - began < 5, "without a look at any pixel"
    assert len(str(refused.value)) < 120


def test_the_limit_is_the_callers() -> None:
    with pytest.raises(UnreadableFrame, match="3,000 are the limit"):
        decode(HONEST, maximum_pixels=3_000)
    assert decode(HONEST, maximum_pixels=64 * 48) is not None


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_seen_but_never_worse(data: st.DataObject) -> None:
    damaged = bytearray(HONEST)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = decode(bytes(damaged), maximum_pixels=1_000_000)
    except UnreadableFrame:
        return
    assert picture.ndim == 3 and picture.size <= 3_000_000


@given(st.binary(max_size=400))
def test_chance_is_no_picture(tail: bytes) -> None:
    with pytest.raises(UnreadableFrame):
        decode(b"\xff\xd8\xff" + tail)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 10_000, "no JSON"),
        (b'{"time": 3}', "unknown key"),
        (b'{"time_left_ms": "3"}', "wrong type"),
        (b'{"time_left_ms": true}', "wrong type"),
        (b'{"time_left_ms": -1}', "no time"),
        (b'{"time_left_ms": NaN}', "no time"),
        (b'{"time_left_ms": 3}' + b" " * 20_000, "longer"),
        (b"\xff\xfe{}", "no JSON"),
    ],
)
def test_options_that_are_none_are_refused(text: bytes, problem: str) -> None:
    with pytest.raises(OptionsRefused, match=problem):
        parse(text, {"time_left_ms": (int, float)})


def test_options_are_optional() -> None:
    assert parse(None, {}) == parse(b"", {}) == parse(b"{}", {}) == {}
    assert parse(b'{"time_left_ms": 2.5}', {"time_left_ms": (int, float)}) == {"time_left_ms": 2.5}


def test_a_deadline_passes() -> None:
    assert Deadline(0).passed() and Deadline(0).left_ms() == 0
    assert not Deadline().passed() and Deadline().at_most(50).left_ms() <= 50
    assert 0 < Deadline(1000).at_most(5000).left_ms() <= 1000
