"""What must not come in: each thing gets its own clear refusal, as problem details, and the connection stays usable."""

import asyncio
import base64
import io
import json
import struct
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from infra.sandbox.glasses import DeviceKey, Glasses, LinkLost
from schemas.errors import PROBLEMS
from schemas.ids import DeviceId, EventId
from tests.support.frames import barcode_jpeg, blank_jpeg, gtin13
from tests.support.world import RunningPlatform


@pytest.fixture
async def glasses(platform: RunningPlatform) -> AsyncIterator[Glasses]:
    async with platform.worn(await platform.rows.glasses()) as connected:
        yield connected


def head(**changes: Any) -> str:
    now = datetime.now(UTC).isoformat()
    event = {"specversion": "1.0", "id": str(EventId.new()), "type": "sighting.captured", "capturedat": now, "intent": "price"}
    return json.dumps({**event, "bytes": 1000, **changes})


def of_size(width: int, height: int) -> bytes:
    """A small JPEG whose header claims these dimensions: what a decompression bomb looks like."""
    written = io.BytesIO()
    Image.new("L", (16, 16)).save(written, "JPEG")
    data = bytearray(written.getvalue())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


async def refusal(glasses: Glasses) -> dict[str, Any]:
    message = await glasses.expect(lambda message: message["type"] == "gateway.problem")
    problem: dict[str, Any] = message["problem"]
    assert problem["status"] == PROBLEMS[problem["code"]].status
    assert problem["type"].endswith(problem["code"])
    assert problem["detail"] and problem["remedy"]
    assert "Traceback" not in json.dumps(message)
    return problem


async def still_answers(glasses: Glasses) -> None:
    """A refused message must not spoil the connection."""
    assert (await glasses.look(blank_jpeg()))["type"] == "look.again"


FRAMES = {
    "frame-too-large": b"\xff\xd8\xff" + bytes(20 * 1024 * 1024),
    "frame-not-jpeg": b"GIF89a" + bytes(500),
    "frame-truncated": blank_jpeg()[:-400],
    "frame-dimensions": of_size(30_000, 30_000),
}


@pytest.mark.parametrize("code", FRAMES)
async def test_a_bad_frame_is_refused_with_its_code(glasses: Glasses, code: str) -> None:
    sighting = await glasses.send_frame(FRAMES[code])
    problem = await refusal(glasses)
    assert problem["code"] == code
    assert (await glasses.accepted(sighting))["type"] == "gateway.problem"
    await still_answers(glasses)


async def test_a_large_frame_is_refused_before_it_is_sent(glasses: Glasses) -> None:
    await glasses.send_text(head(bytes=20_000_000))
    assert (await refusal(glasses))["code"] == "frame-too-large"


async def test_a_frame_that_is_not_as_long_as_its_head_says(glasses: Glasses) -> None:
    await glasses.send_frame(blank_jpeg(), bytes=17)
    assert (await refusal(glasses))["code"] == "frame-length-differs"
    await still_answers(glasses)


def worn(**changes: Any) -> str:
    """Glasses were put on, now."""
    event = {"specversion": "1.0", "id": str(EventId.new()), "type": "wear.changed", "data": {"state": "worn"}}
    return json.dumps({**event, **changes})


TEXTS: dict[str, tuple[Callable[[], str], str]] = {
    "not JSON": (lambda: "{this is not JSON", "message-malformed"),
    "not an object": (lambda: "[1, 2]", "message-malformed"),
    "nested without end": (lambda: "[" * 30_000, "message-malformed"),
    "an unknown attribute": (lambda: worn(colour="red"), "message-malformed"),
    "a NUL in an attribute": (lambda: worn(subject="a\0b"), "message-malformed"),
    "half of a character": (lambda: worn(id="\ud800"), "message-malformed"),
    "a type that only the platform sends": (lambda: worn(type="payment.captured", data={}), "event-type-unknown"),
    "a type that does not exist": (lambda: worn(type="no.such", data={}), "event-type-unknown"),
    "an id that is none": (lambda: worn(id="17"), "event-invalid"),
    "data that does not fit": (lambda: worn(data={"state": "asleep"}), "event-invalid"),
    "a sighting without a length": (lambda: head(bytes=None), "event-invalid"),
    "too long": (lambda: json.dumps({"type": "x" * 70_000}), "too-large"),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_a_bad_message_is_refused_with_its_code(glasses: Glasses, name: str) -> None:
    make, code = TEXTS[name]
    await glasses.send_text(make())
    assert (await refusal(glasses))["code"] == code
    await still_answers(glasses)


async def test_an_event_from_the_future_and_one_from_the_past(glasses: Glasses) -> None:
    now = datetime.now(UTC)
    for at, code in ((now + timedelta(minutes=5), "event-in-future"), (now - timedelta(minutes=5), "event-too-old")):
        before = len(glasses.received)
        await glasses.send_frame(blank_jpeg(), capturedat=at.isoformat())
        message = await glasses.expect(lambda message: message["type"] == "gateway.problem", after=before)
        assert message["problem"]["code"] == code
    await still_answers(glasses)


async def test_a_frame_without_a_head(glasses: Glasses) -> None:
    await glasses._socket.send(blank_jpeg())
    assert (await refusal(glasses))["code"] == "message-unexpected"
    await still_answers(glasses)


async def test_a_head_whose_frame_does_not_follow_is_refused_and_what_came_instead_is_taken(glasses: Glasses) -> None:
    lonely, following = str(EventId.new()), str(EventId.new())
    await glasses.send_text(head(id=lonely))
    await glasses.send("wear.changed", {"state": "worn"}, id=following)
    assert (await glasses.accepted(lonely))["problem"]["code"] == "message-unexpected"
    assert (await glasses.accepted(following))["type"] == "gateway.accepted"


async def test_the_frame_of_a_refused_head_is_passed_over(glasses: Glasses) -> None:
    await glasses.send_frame(blank_jpeg(), bytes=0)
    await refusal(glasses)
    await still_answers(glasses)
    assert len([message for _, message in glasses.received if message["type"] == "gateway.problem"]) == 1


# At the door.


async def denied(platform: RunningPlatform, authorization: str | None) -> dict[str, Any]:
    headers = {"Authorization": authorization} if authorization else {}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(platform.gateway, additional_headers=headers):
            pass
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.body or b"{}")
    assert problem["status"] == response.status_code
    return problem


async def test_an_unknown_device_is_not_let_in(platform: RunningPlatform) -> None:
    token = DeviceKey().token(str(DeviceId.new()))
    assert (await denied(platform, f"Bearer {token}"))["code"] == "device-unknown"


async def test_a_known_device_with_another_key_is_not_let_in(platform: RunningPlatform) -> None:
    known = await platform.rows.glasses()
    assert (await denied(platform, f"Bearer {DeviceKey().token(known.device_id)}"))["code"] == "credentials-invalid"


async def test_a_token_for_another_audience_is_not_let_in(platform: RunningPlatform) -> None:
    known = await platform.rows.glasses()
    token = known.key.token(known.device_id, audience="somebody-else")
    assert (await denied(platform, f"Bearer {token}"))["code"] == "credentials-invalid"


@pytest.mark.parametrize("authorization", [None, "Basic Zm9v", "Bearer ", "Bearer abc", "Bearer a.b.c"])
async def test_without_a_proper_token_nobody_is_let_in(platform: RunningPlatform, authorization: str | None) -> None:
    assert (await denied(platform, authorization))["code"] in {"credentials-missing", "credentials-invalid"}


# From a maker's cloud.


async def test_a_makers_cloud_sends_a_frame_and_gets_the_answer(platform: RunningPlatform) -> None:
    gtin = gtin13(77)
    await platform.rows.product(platform.shop, gtin=gtin)
    maker, token = await platform.rows.maker()
    device = await platform.rows.glasses(maker=maker)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "image/jpeg",
        "Prefer": "wait=10",
        "ce-specversion": "1.0",
        "ce-id": str(EventId.new()),
        "ce-type": "sighting.captured",
        "ce-deviceid": device.device_id,
        "ce-capturedat": datetime.now(UTC).isoformat(),
        "ce-intent": "price",
    }
    async with httpx.AsyncClient(base_url=platform.api) as client:
        answer = await client.post("/v1/events", headers=headers, content=barcode_jpeg(gtin), timeout=30)
        assert answer.status_code == 200, answer.text
        [event] = answer.json()
        assert event["type"] == "offers.found"
        assert event["data"]["gtin"] == gtin.zfill(14)

        structured = {
            "specversion": "1.0",
            "id": str(EventId.new()),
            "type": "wear.changed",
            "deviceid": device.device_id,
            "data": {"state": "worn"},
        }
        content_type = {"Authorization": f"Bearer {token}", "Content-Type": "application/cloudevents+json"}
        accepted = await client.post("/v1/events", headers=content_type, content=json.dumps(structured))
        assert accepted.status_code == 202
        assert accepted.json()["id"] == structured["id"]


async def test_a_maker_speaks_only_for_its_own_devices(platform: RunningPlatform) -> None:
    _, token = await platform.rows.maker()
    stranger = await platform.rows.glasses()
    event = {"specversion": "1.0", "id": str(EventId.new()), "type": "wear.changed", "data": {"state": "worn"}}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/cloudevents+json"}
    async with httpx.AsyncClient(base_url=platform.api) as client:
        for device, status, code in (
            (stranger.device_id, 403, "device-not-yours"),
            (str(DeviceId.new()), 403, "device-not-yours"),
            ("nonsense", 403, "device-not-yours"),
        ):
            body = json.dumps({**event, "deviceid": device})
            refused = await client.post("/v1/events", headers=headers, content=body)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
        for body, code in (("{", "message-malformed"), ("x" * 4_000_000, "frame-too-large")):
            refused = await client.post("/v1/events", headers=headers, content=body)
            assert refused.json()["code"] == code
            assert refused.headers["content-type"] == "application/problem+json"
        unknown = await client.post("/v1/events", headers={"Authorization": "Bearer nobody"}, content="{}")
        assert (unknown.status_code, unknown.json()["code"]) == (401, "credentials-invalid")
        lost = await client.get("/v1/nowhere")
        assert (lost.status_code, lost.json()["code"]) == (404, "not-found")


async def test_a_body_is_counted_before_anybody_reads_it(platform: RunningPlatform) -> None:
    async def without_end() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(64 * 1024)

    async with httpx.AsyncClient(base_url=platform.api) as client:
        declared = await client.post("/v1/endpoints", content=bytes(200_000))
        assert (declared.status_code, declared.json()["code"]) == (413, "too-large")
        undeclared = await client.post("/v1/endpoints", content=without_end(), timeout=20)
        assert (undeclared.status_code, undeclared.json()["code"]) in {(413, "too-large"), (401, "credentials-missing")}
        nested = "eyJhbGciOiJFZERTQSJ9." + base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("=") + ".AA"
        deep = await client.get("/v1/payments", headers={"Authorization": f"Bearer {nested}"})
        assert deep.status_code == 401


async def test_slow_bodies_of_one_maker_hold_no_other_up(platform: RunningPlatform) -> None:
    _, slow_token = await platform.rows.maker()
    maker, token = await platform.rows.maker()
    device = await platform.rows.glasses(maker=maker)
    host, _, port = platform.api.removeprefix("http://").partition(":")
    request = f"POST /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {slow_token}\r\nContent-Length: 1000\r\n\r\n{{"
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(70)]
    try:
        for _, writer in connections:
            writer.write(request.encode())
            await writer.drain()
        refused = await asyncio.wait_for(first_line(connections), 30)
        assert b"503" in refused, "one maker has so much room and no more"
        event = {"specversion": "1.0", "id": str(EventId.new()), "type": "wear.changed", "data": {"state": "worn"}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/cloudevents+json"}
        async with httpx.AsyncClient(base_url=platform.api) as client:
            body = json.dumps({**event, "deviceid": device.device_id})
            accepted = await client.post("/v1/events", headers=headers, content=body, timeout=30)
        assert accepted.status_code == 202, accepted.text
    finally:
        for _, writer in connections:
            writer.close()


async def first_line(connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> bytes:
    """Of whichever connection is answered first."""
    reading = [asyncio.create_task(reader.readline()) for reader, _ in connections]
    done, left = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    return done.pop().result()


async def test_a_deeply_nested_token_is_just_no_token(platform: RunningPlatform) -> None:
    payload = base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("=")
    assert (await denied(platform, f"Bearer e30.{payload}.AA"))["code"] == "credentials-invalid"


async def test_at_another_address_there_is_nothing_for_glasses(platform: RunningPlatform) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(platform.gateway + "/nowhere"):
            pass
    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body or b"")["code"] == "not-found"


# One connection per device.


async def test_the_end_of_an_old_connection_takes_nothing_from_the_new_one(platform: RunningPlatform) -> None:
    gtin = gtin13(4712)
    await platform.rows.product(platform.shop, gtin=gtin)
    paired = await platform.payer()
    async with platform.worn(paired) as old, platform.worn(paired) as new:
        with pytest.raises(LinkLost):
            await old.expect(lambda message: message["type"] == "nothing", timeout_s=20)
        answer = await new.look(barcode_jpeg(gtin), "pay")
        proposed = await new.request_payment(answer)
        assert proposed["type"] == "payment.proposed", proposed
        await new.send_approval(proposed)
        await new.payment(answer["journeyid"], "captured")


async def test_nobody_writes_into_anothers_journey(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.rows.glasses()) as one, platform.worn(await platform.rows.glasses()) as other:
        theirs = (await one.look(blank_jpeg()))["journeyid"]
        sighting = await other.send_frame(blank_jpeg(), journeyid=theirs)
        answer = await other.expect(lambda message: message.get("data", {}).get("sighting_id") == sighting)
        assert answer["journeyid"] != theirs


# Newest frame wins.


async def test_of_frames_that_wait_only_the_newest_is_looked_at(glasses: Glasses) -> None:
    frame = blank_jpeg()
    sent = [await glasses.send_frame(frame) for _ in range(6)]
    answer = await glasses.expect(lambda message: message["type"] == "look.again" and message["data"]["sighting_id"] == sent[-1])
    assert answer
    dropped = [message["id"] for _, message in glasses.received if message["type"] == "gateway.dropped"]
    answered = [message["data"]["sighting_id"] for _, message in glasses.received if message["type"] == "look.again"]
    assert sorted(dropped + answered) == sorted(sent), "every frame has exactly one end"
    assert dropped, "six frames at once cannot all be under way"
