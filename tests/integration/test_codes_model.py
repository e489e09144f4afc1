"""The model `codes` on a real tritonserver: what it answers and refuses, and that nothing sent to it hurts the next frame."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy
import psutil
import pytest
import zxingcpp
from PIL import Image
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from infra.local.stack import LocalStack
from infra.sandbox import sessions
from infra.sandbox.pictures.code_frames import EASY, HARD, draw
from schemas.recognition import Intent
from streams.sightings.codes import Read, meaning
from tests.support.frames import barcode_jpeg, blank_jpeg, gtin13
from tests.support.hostile_frames import hostile, jpeg, many_scans

PRODUCT = gtin13(4711)
HOSTILE = hostile()
FAR = replace(EASY, module=(0.75, 0.85))
BOUND_S = 15.0
BOUND_BYTES = 256 * 1024 * 1024


@pytest.fixture
async def client(triton_url: str) -> AsyncIterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(triton_url)
    yield client
    await client.close()


async def ask(client: triton.InferenceServerClient, jpeg: bytes, options: object = None, timeout_s: float = 30) -> dict[str, Any]:
    image = triton.InferInput("IMAGE", [1, len(jpeg)], "UINT8")
    image.set_data_from_numpy(numpy.frombuffer(jpeg, dtype=numpy.uint8).reshape(1, -1))
    inputs = [image]
    if options is not None:
        told = triton.InferInput("OPTIONS", [1, 1], "BYTES")
        text = options if isinstance(options, bytes) else json.dumps(options).encode()
        told.set_data_from_numpy(numpy.array([[text]], dtype=numpy.object_))
        inputs.append(told)
    answered = await client.infer("codes", inputs, client_timeout=timeout_s)
    result = answered.as_numpy("RESULT")
    assert result.shape == (1, 1)
    answer: dict[str, Any] = json.loads(result[0, 0])
    return answer


async def codes_of(client: triton.InferenceServerClient, jpeg: bytes, options: object = None) -> list[dict[str, Any]]:
    codes: list[dict[str, Any]] = (await ask(client, jpeg, options))["codes"]
    return codes


async def refusal(client: triton.InferenceServerClient, jpeg: bytes, options: object = None) -> str:
    with pytest.raises(InferenceServerException) as refused:
        await ask(client, jpeg, options)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT", refused.value
    return str(refused.value.message())


def model_processes(stack: LocalStack) -> list[psutil.Process]:
    server = psutil.Process(stack.supervisor.status("triton").pid)
    return [server, *server.children(recursive=True)]


async def test_a_code_is_told_as_the_contract_says(client: triton.InferenceServerClient) -> None:
    answer = await ask(client, sessions.picture("milk"))
    assert answer.keys() == {"width", "height", "quality", "codes"}
    assert (answer["width"], answer["height"], answer["quality"]) == (640, 480, None)
    [code] = answer["codes"]
    assert code.keys() == {"text", "format", "symbology_identifier", "corners", "valid"}
    assert (code["text"], code["format"], code["symbology_identifier"]) == ("9520000010010", "EAN13", "]E0")
    assert code["valid"] is True and numpy.shape(code["corners"]) == (4, 2)


@pytest.mark.parametrize(
    ("format", "text", "gtin"),
    [
        ("EAN13", "9520000010010", "09520000010010"),
        ("EAN8", "96385074", "00000096385074"),
        ("UPCA", "036000291452", "00036000291452"),
        ("UPCE", "01234565", "00012345000065"),
        ("ITF14", "15400141288763", "15400141288763"),
        ("ITF", "15400141288763", "15400141288763"),
        ("DataBarOmni", "05400141288766", "05400141288766"),
        ("DataBarStk", "05400141288766", "05400141288766"),
        ("DataBarStkOmni", "05400141288766", "05400141288766"),
        ("DataBarLtd", "05400141288766", "05400141288766"),
        ("DataBarExp", "(01)05400141288766(17)271231", "05400141288766"),
        ("DataBarExpStk", "(01)05400141288766(17)271231", "05400141288766"),
    ],
)
async def test_every_kind_of_product_code_is_understood_as_it_is_told(
    client: triton.InferenceServerClient, format: str, text: str, gtin: str
) -> None:
    """The names that the model gives to what it has read are those that the stage knows."""
    [told] = await codes_of(client, symbol_jpeg(format, text), {"time_left_ms": 5000})
    assert meaning(Read.model_validate(told), Intent.PRICE).gtin == gtin


def symbol_jpeg(format: str, text: str) -> bytes:
    barcode = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, format))
    drawn = numpy.asarray(zxingcpp.write_barcode_to_image(barcode, scale=3))
    written = io.BytesIO()
    Image.fromarray(numpy.pad(drawn, 60, constant_values=255)).save(written, "JPEG", quality=90)
    return written.getvalue()


async def test_a_frame_without_a_code_tells_how_good_it_is_to_look_at(client: triton.InferenceServerClient) -> None:
    answer = await ask(client, blank_jpeg())
    assert answer["codes"] == []
    assert answer["quality"].keys() == {"sharpness", "brightness", "glare", "texture"} and answer["quality"]["texture"] < 6


async def test_a_code_that_is_too_far_away_is_seen(client: triton.InferenceServerClient) -> None:
    seen = [await ask(client, draw(seed, "EAN13", FAR).jpeg, {"time_left_ms": 2000}) for seed in range(8)]
    unread = [code for answer in seen for code in answer["codes"] if not code["valid"]]
    assert len(unread) >= 2 and all(answer["quality"] for answer in seen if not any(code["valid"] for code in answer["codes"]))
    assert all((code["text"], code["format"]) == ("", "Linear") for code in unread)


async def test_time_is_used_where_there_is_some(client: triton.InferenceServerClient) -> None:
    """Frames that the quick look does not read: with a millisecond they are not, with some seconds some are."""
    shown = [draw(seed, "EAN8", HARD) for seed in range(600, 610)]
    quick = [await codes_of(client, frame.jpeg, {"time_left_ms": 1}) for frame in shown]
    thorough = [await codes_of(client, frame.jpeg, {"time_left_ms": 5000}) for frame in shown]
    read = [sum(code["valid"] for codes in answers for code in codes) for answers in (quick, thorough)]
    assert read[0] < read[1]
    assert {code["text"] for codes in thorough for code in codes if code["valid"]} <= {frame.text for frame in shown}


@pytest.mark.parametrize("options", [{"time": 3}, {"time_left_ms": "soon"}, [], b"{", b"\xff"], ids=str)
async def test_options_that_are_none_are_refused(client: triton.InferenceServerClient, options: object) -> None:
    assert "OPTIONS" in await refusal(client, barcode_jpeg(PRODUCT), options)


async def test_no_time_left_is_no_work(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as shed:
        await ask(client, barcode_jpeg(PRODUCT), {"time_left_ms": 0})
    assert shed.value.status() == "StatusCode.CANCELLED"


@pytest.mark.parametrize("name", HOSTILE)
async def test_harm_is_refused_and_the_next_frame_is_answered(client: triton.InferenceServerClient, name: str) -> None:
    began = perf_counter()
    message = await refusal(client, HOSTILE[name])
    assert message.startswith("IMAGE") or name == "empty", message
    assert [code["text"] for code in await codes_of(client, barcode_jpeg(PRODUCT))] == [PRODUCT]
    assert perf_counter() - began < BOUND_S


async def test_harm_takes_no_memory(triton: LocalStack, client: triton.InferenceServerClient) -> None:
    await ask(client, jpeg((4000, 3000)), {"time_left_ms": 1000})  # the largest honest frame; what it took is kept
    before = {process.pid: process.memory_info().rss for process in model_processes(triton)}
    for _ in range(3):
        await asyncio.gather(*(refusal(client, encoded) for encoded in HOSTILE.values()))
    after = {process.pid: process.memory_info().rss for process in model_processes(triton)}
    assert after.keys() == before.keys(), "no process died and was started again"
    assert sum(after.values()) - sum(before.values()) < BOUND_BYTES


async def test_the_most_a_frame_may_cost_is_bounded(client: triton.InferenceServerClient) -> None:
    """Just within every limit: twenty million pixels, as many scans as are allowed."""
    worst = many_scans(jpeg((5000, 4000), progressive=True, quality=5), 20)
    began = perf_counter()
    assert await codes_of(client, worst, {"time_left_ms": 300}) == []
    assert perf_counter() - began < 20
