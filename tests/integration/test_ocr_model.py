"""The model `ocr` in a real tritonserver."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy
import pytest
from PIL import Image
from tritonclient.grpc import aio as grpc
from tritonclient.utils import InferenceServerException

from infra.sandbox.pictures.price_tags import LAYOUTS, Tag, tag
from schemas.recognition import PriceTag
from streams.sightings import price_tags
from streams.sightings.triton import Text


@pytest.fixture
async def client(triton_url: str) -> AsyncIterator[grpc.InferenceServerClient]:
    client = grpc.InferenceServerClient(triton_url)
    yield client
    await client.close()


async def ask(client: grpc.InferenceServerClient, jpeg: bytes, options: object = None) -> Any:
    image = grpc.InferInput("IMAGE", [1, len(jpeg)], "UINT8")
    image.set_data_from_numpy(numpy.frombuffer(jpeg, numpy.uint8)[None])
    inputs = [image]
    if options is not None:
        said = grpc.InferInput("OPTIONS", [1, 1], "BYTES")
        said.set_data_from_numpy(numpy.array([[json.dumps(options).encode()]], dtype=numpy.object_))
        inputs.append(said)
    answer = await client.infer("ocr", inputs)
    return json.loads(answer.as_numpy("RESULT").reshape(-1)[0])


def of_layout(name: str) -> Tag:
    return tag(0, "integration", tuple(layout for layout in LAYOUTS if layout.name == name))


@pytest.mark.parametrize("name", ["shelf, euro", "raised cents, euro", "shelf, American", "shelf, Chinese"])
async def test_a_tag_is_read_from_pixels_to_price(client: grpc.InferenceServerClient, name: str) -> None:
    drawn = of_layout(name)
    text = Text.model_validate(await ask(client, drawn.jpeg))
    assert (text.width, text.height) == drawn.size
    answer = price_tags.read(text.lines, size=drawn.size, region=drawn.region)
    assert isinstance(answer, PriceTag), (answer, text.lines)
    assert answer.price == drawn.truth.price


async def test_corners_are_in_pixels_of_the_frame_as_it_was_sent(client: grpc.InferenceServerClient) -> None:
    drawn = of_layout("shelf, euro")
    small = await ask(client, drawn.jpeg)
    enlarged = io.BytesIO()
    # Larger than what is looked at: it is made smaller inside, and nobody outside notices.
    Image.open(io.BytesIO(drawn.jpeg)).resize((drawn.size[0] * 4, drawn.size[1] * 4)).save(enlarged, "JPEG", quality=90)
    large = await ask(client, enlarged.getvalue())
    assert (large["width"], large["height"]) == (small["width"] * 4, small["height"] * 4)
    prices = [next(line for line in answer["lines"] if line["text"] == _tallest(small)) for answer in (small, large)]
    distance = numpy.abs(numpy.array(prices[0]["corners"]) * 4 - numpy.array(prices[1]["corners"]))
    assert distance.max() < 60


def _tallest(answer: Any) -> str:
    return str(max(answer["lines"], key=lambda line: line["corners"][3][1] - line["corners"][0][1])["text"])


async def test_in_a_hurry_less_is_read(client: grpc.InferenceServerClient) -> None:
    drawn = of_layout("shelf, euro")
    whole = await ask(client, drawn.jpeg)
    hurried = await ask(client, drawn.jpeg, {"time_left_ms": 20})
    assert len(hurried["lines"]) < len(whole["lines"])


async def test_a_picture_without_text_has_no_lines(client: grpc.InferenceServerClient) -> None:
    written = io.BytesIO()
    Image.new("RGB", (640, 480), (180, 170, 160)).save(written, "JPEG")
    assert await ask(client, written.getvalue()) == {"width": 640, "height": 480, "lines": []}


@pytest.mark.parametrize("options", [{"time": 3}, {"time_left_ms": "soon"}, [1]])
async def test_unknown_options_are_refused(client: grpc.InferenceServerClient, options: object) -> None:
    with pytest.raises(InferenceServerException, match="OPTIONS"):
        await ask(client, of_layout("shelf, euro").jpeg, options)


async def test_what_is_no_jpeg_is_refused_and_the_next_is_read(client: grpc.InferenceServerClient) -> None:
    for hostile in (b"not a picture", of_layout("shelf, euro").jpeg[:2000]):
        with pytest.raises(InferenceServerException) as refusal:
            await ask(client, hostile)
        assert "INVALID_ARGUMENT" in str(refusal.value.status())
    assert (await ask(client, of_layout("shelf, euro").jpeg))["lines"]
