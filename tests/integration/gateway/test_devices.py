"""The makers' API for devices: keys that prove themselves, and what happens to a device whose key changes or that is revoked."""

import base64
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from infra.sandbox.glasses import DeviceKey
from schemas.errors import Rejected
from schemas.ids import DeviceId, MakerId
from schemas.payments import WearState
from schemas.tables import devices
from streams.gateway import credentials, problems
from streams.gateway.devices import DevicesApi
from tests.integration.intents.world import Wearer, change_key, revoke, wearer
from tests.support.rows import Rows

AUDIENCE = "augenblick-gateway"


class Maker:
    """A maker's cloud, with its token."""

    def __init__(self, client: httpx.AsyncClient, maker_id: MakerId, token: str) -> None:
        self.id = maker_id
        self.headers = {"Authorization": f"Bearer {token}"}
        self._client = client

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return await self._client.post(path, json=body, headers=self.headers)

    async def delete(self, path: str) -> httpx.Response:
        return await self._client.delete(path, headers=self.headers)

    async def pair(self, key: DeviceKey, **changes: Any) -> httpx.Response:
        body = {"public_key": key.public_base64, "locale": "de-DE", "currency": "EUR", "proof": key.prove_pairing(self.id)}
        return await self.post("/v1/devices", {**body, **changes})

    async def change(self, device_id: str, old: DeviceKey, new: DeviceKey, **changes: Any) -> httpx.Response:
        return await self.post(f"/v1/devices/{device_id}/key", {**key_change(device_id, old, new), **changes})


def key_change(device_id: str, old: DeviceKey, new: DeviceKey, **claims: Any) -> dict[str, str]:
    return {
        "public_key": new.public_base64,
        "proof_old": old.prove_key_change(device_id, new, **claims),
        "proof_new": new.prove_key_change(device_id, new, **claims),
    }


@pytest.fixture
async def client(rows: Rows) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    problems.install(app)
    app.include_router(DevicesApi(rows.database, rows.sealer).router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test") as client:
        yield client


@pytest.fixture
async def maker(rows: Rows, client: httpx.AsyncClient) -> Maker:
    return Maker(client, *await rows.maker())


def code(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    return str(body["code"])


async def may_connect(rows: Rows, device_id: str, key: DeviceKey) -> bool:
    try:
        return bool(await credentials.device(rows.database, f"Bearer {key.token(device_id)}", AUDIENCE))
    except Rejected:
        return False


# Pairing.


async def test_a_key_is_paired_by_proving_itself(rows: Rows, maker: Maker) -> None:
    key = DeviceKey()
    response = await maker.pair(key, region="DE")
    assert response.status_code == 201, response.text
    device = response.json()
    assert DeviceId(device["id"])
    assert (device["public_key"], device["can_pay"], device["revoked"]) == (key.public_base64, False, False)
    assert await may_connect(rows, device["id"], key)
    again = await maker.pair(key, locale="sv-SE")
    assert (again.status_code, again.json()) == (200, device), "the same pairing, sent again"
    assert await rows.count("devices", maker_id=maker.id) == 1


async def test_a_key_belongs_to_the_maker_it_was_proved_for(rows: Rows, maker: Maker, client: httpx.AsyncClient) -> None:
    other, key = Maker(client, *await rows.maker("Another")), DeviceKey()
    response = await other.pair(key, proof=key.prove_pairing(maker.id))
    assert (response.status_code, code(response)) == (403, "key-proof-invalid")
    assert (await other.pair(key)).json()["id"] != (await maker.pair(key)).json()["id"]


STRANGER = DeviceKey()


def now() -> int:
    """When it is asked: the tests are collected long before they run."""
    return int(time.time())


WRONG_PROOFS: dict[str, Callable[[DeviceKey, str], str]] = {
    "by another key": lambda key, maker: DeviceKey().prove_pairing(maker, public_key=key.public_base64),
    "for another key": lambda key, maker: key.prove_pairing(maker, public_key=STRANGER.public_base64),
    "over": lambda key, maker: key.prove_pairing(maker, iat=now() - 300, exp=now() - 1),
    "not yet": lambda key, maker: key.prove_pairing(maker, iat=now() + 3600, exp=now() + 3700),
    "living too long": lambda key, maker: key.prove_pairing(maker, exp=now() + 3600),
    "saying more": lambda key, maker: key.prove_pairing(maker, device_id="dev"),
    "of another type": lambda key, maker: key.sign(
        {"typ": "augenblick-key-change+jws"},
        {"maker_id": maker, "public_key": key.public_base64, "iat": now(), "exp": now() + 60},
    ),
    "of no type": lambda key, maker: key.sign(
        {}, {"maker_id": maker, "public_key": key.public_base64, "iat": now(), "exp": now() + 60}
    ),
    "with another header": lambda key, maker: key.sign(
        {"typ": "augenblick-pairing+jws", "kid": "1"},
        {"maker_id": maker, "public_key": key.public_base64, "iat": now(), "exp": now() + 60},
    ),
    "unsigned": lambda key, maker: "eyJhbGciOiJub25lIn0.e30.AA",
}


@pytest.mark.parametrize("name", WRONG_PROOFS)
async def test_proofs_that_do_not_hold(rows: Rows, maker: Maker, name: str) -> None:
    key = DeviceKey()
    response = await maker.pair(key, proof=WRONG_PROOFS[name](key, maker.id))
    assert (response.status_code, code(response)) == (403, "key-proof-invalid")
    assert await rows.count("devices", maker_id=maker.id) == 0


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"public_key": base64.b64encode(bytes(31)).decode()}, "/body/public_key"),
        ({"public_key": STRANGER.public_base64[:-2] + "B="}, "/public_key"),
        ({"public_key": "%" * 44}, "/body/public_key"),
        ({"locale": "tlh"}, "/locale"),
        ({"currency": "XYZ"}, "/currency"),
        ({"region": "de"}, "/region"),
        ({"proof": "x" * 5000}, "/body/proof"),
        ({"payer": "stripe:cus_1:pm_1"}, "/body/payer"),
    ],
)
async def test_devices_that_cannot_be(rows: Rows, maker: Maker, wrong: dict[str, Any], pointer: str) -> None:
    response = await maker.pair(DeviceKey(), **wrong)
    assert (response.status_code, code(response)) == (422, "request-invalid")
    assert pointer in {error["pointer"] for error in response.json()["errors"]}
    assert await rows.count("devices", maker_id=maker.id) == 0


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ],
)
async def test_keys_under_which_anybody_can_sign(rows: Rows, maker: Maker, point: bytes) -> None:
    """The easiest signature of all holds for some texts under each of them, and under the second for all: so would the proof."""
    text = base64.b64encode(point).decode()
    claims = {"maker_id": maker.id, "public_key": text, "iat": now(), "exp": now() + 60}
    for _ in range(3):
        claims["exp"] += 1
        signing, _, _ = STRANGER.sign({"typ": "augenblick-pairing+jws"}, claims).rpartition(".")
        easy = base64.urlsafe_b64encode(b"\x01" + bytes(63)).rstrip(b"=").decode()
        response = await maker.pair(STRANGER, public_key=text, proof=f"{signing}.{easy}")
        assert code(response) in {"request-invalid", "key-proof-invalid"}
    assert await rows.count("devices", maker_id=maker.id) == 0


@pytest.mark.parametrize("method", ["pair", "change", "revoke"])
async def test_only_makers_come_in(rows: Rows, client: httpx.AsyncClient, maker: Maker, method: str) -> None:
    device = (await maker.pair(key := DeviceKey())).json()["id"]
    shop = await rows.merchant()
    for headers in ({}, {"Authorization": f"Bearer {shop.token}"}, {"Authorization": "Basic eDp5"}):
        stranger = Maker(client, maker.id, "")
        stranger.headers = headers
        response = {
            "pair": lambda stranger=stranger: stranger.pair(DeviceKey()),
            "change": lambda stranger=stranger: stranger.change(device, key, DeviceKey()),
            "revoke": lambda stranger=stranger: stranger.delete(f"/v1/devices/{device}"),
        }[method]
        answer = await response()
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert await may_connect(rows, device, key)


async def test_a_device_is_its_makers_alone(rows: Rows, client: httpx.AsyncClient, maker: Maker) -> None:
    other = Maker(client, *await rows.maker("Another"))
    device = (await maker.pair(key := DeviceKey())).json()["id"]
    for answer in (
        await other.change(device, key, DeviceKey()),
        await other.delete(f"/v1/devices/{device}"),
        await other.delete(f"/v1/devices/{DeviceId.new()}"),
    ):
        assert (answer.status_code, code(answer)) == (403, "device-not-yours")
    assert await may_connect(rows, device, key)


# Another key.


async def test_a_key_is_changed_by_both_keys(rows: Rows, maker: Maker) -> None:
    old, new = DeviceKey(), DeviceKey()
    device = (await maker.pair(old)).json()["id"]
    response = await maker.change(device, old, new)
    assert response.status_code == 200, response.text
    assert response.json()["public_key"] == new.public_base64
    assert response.json()["key_changed_at"]
    assert not await may_connect(rows, device, old)
    assert await may_connect(rows, device, new)
    gone = await maker.pair(old)
    assert (gone.status_code, code(gone)) == (403, "key-proof-invalid"), "a key that was replaced does not come back"


async def test_neither_key_is_enough(rows: Rows, maker: Maker) -> None:
    old, new, third = DeviceKey(), DeviceKey(), DeviceKey()
    device = (await maker.pair(old)).json()["id"]
    other = (await maker.pair(third)).json()["id"]
    right = key_change(device, old, new)
    wrong: list[dict[str, str]] = [
        {**right, "proof_old": right["proof_new"]},
        {**right, "proof_new": right["proof_old"]},
        {**right, "proof_old": third.prove_key_change(device, new)},
        {**right, "proof_old": old.prove_key_change(other, new)},
        {**right, "proof_new": new.prove_key_change(other, new)},
        {**right, "proof_old": old.prove_key_change(device, third)},
        {**right, "public_key": third.public_base64},
        {**right, "proof_new": new.prove_pairing(maker.id)},
        key_change(device, old, new, exp=now() - 1, iat=now() - 60),
        key_change(device, old, new, exp=now() + 3600),
        key_change(device, old, old),
    ]
    for body in wrong:
        response = await maker.post(f"/v1/devices/{device}/key", body)
        assert (response.status_code, code(response)) == (403, "key-proof-invalid")
    for point in (bytes(32), b"\x01" + bytes(31)):
        response = await maker.post(f"/v1/devices/{device}/key", {**right, "public_key": base64.b64encode(point).decode()})
        assert code(response) in {"key-proof-invalid", "request-invalid"}
    assert await may_connect(rows, device, old)
    assert (await maker.post(f"/v1/devices/{device}/key", right)).status_code == 200


async def test_a_proof_counts_once(rows: Rows, maker: Maker) -> None:
    """Even when the old key has come back meanwhile, and by a clock that is ahead of ours."""
    old, new = DeviceKey(), DeviceKey()
    device = (await maker.pair(old)).json()["id"]
    at = now()
    first = key_change(device, old, new, iat=at + 3, exp=at + 120)
    assert (await maker.post(f"/v1/devices/{device}/key", first)).status_code == 200
    again = await maker.post(f"/v1/devices/{device}/key", first)
    assert (again.status_code, code(again)) == (403, "key-proof-invalid")
    assert "already" in again.json()["detail"], "who did not hear the answer learns that it was done"
    too_early = key_change(device, new, old, iat=at + 3, exp=at + 120)
    assert code(await maker.post(f"/v1/devices/{device}/key", too_early)) == "key-proof-invalid"
    back = key_change(device, new, old, iat=at + 4, exp=at + 120)
    assert (await maker.post(f"/v1/devices/{device}/key", back)).status_code == 200
    assert code(await maker.post(f"/v1/devices/{device}/key", first)) == "key-proof-invalid"
    assert await may_connect(rows, device, old)


async def test_a_change_of_the_key_cancels_what_is_open(rows: Rows) -> None:
    one, new = await wearer(rows), DeviceKey()
    shop = await rows.merchant()
    proposed = await one.proposed(await one.offer(shop))
    await change_key(rows, one.id, new)
    assert await one.closed() == [("cancelled", "key_changed")]
    assert await worn(one) == WearState.LINK_LOST
    await one.wear()
    assert await one.approves(proposed) == "proposal-closed"
    fresh = await one.proposed(await one.offer(shop))
    assert await one.approves(fresh) == "approval-invalid", "the old key"
    assert await one.payments() == []
    assert await one.approves(fresh, key=new) is None


# Revocation.


async def test_a_revoked_device_is_nobody(rows: Rows, maker: Maker) -> None:
    device = (await maker.pair(key := DeviceKey())).json()["id"]
    assert (await maker.delete(f"/v1/devices/{device}")).status_code == 204
    assert (await maker.delete(f"/v1/devices/{device}")).status_code == 204
    with pytest.raises(Rejected) as refused:
        await credentials.device(rows.database, f"Bearer {key.token(device)}", AUDIENCE)
    assert refused.value.problem.code == "device-revoked"
    for response in (await maker.pair(key), await maker.change(device, key, DeviceKey())):
        assert (response.status_code, code(response)) == (403, "device-revoked")


async def test_a_revocation_cancels_what_is_open(rows: Rows) -> None:
    one = await wearer(rows)
    shop = await rows.merchant()
    paid = await one.proposed(await one.offer(shop))
    assert await one.approves(paid) is None
    proposed = await one.proposed(await one.payee_code(shop, paid.terms.total))
    await revoke(rows, one.id)
    assert await one.closed() == [("cancelled", "revoked")]
    assert await one.approves(proposed) == "proposal-closed"
    await one.wear()
    assert await one.refused(await one.offer(shop)) == "device-revoked"
    assert [payment.state for payment in await one.payments()] == ["approved"], "that was said before"


async def test_an_approval_of_a_revoked_device_does_not_count(rows: Rows) -> None:
    """Even if its proposal had been left open."""
    one = await wearer(rows)
    proposed = await one.proposed(await one.offer(await rows.merchant()))
    async with rows.database.transaction() as connection:
        revoked = update(devices).where(devices.c.id == one.id).values(revoked_at=proposed.terms.expires_at)
        await connection.execute(revoked)
    assert await one.approves(proposed) == "device-revoked"
    assert await one.payments() == []


async def worn(one: Wearer) -> str:
    async with one.rows.database.transaction() as connection:
        return str((await connection.execute(select(devices.c.wear_state).where(devices.c.id == one.id))).scalar_one())
