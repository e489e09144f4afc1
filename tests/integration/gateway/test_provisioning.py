"""Letting in whoever takes part, and refusing what cannot be."""

import os
from typing import Any

import pytest
from sqlalchemy import select

from connectors.http import HttpClient
from schemas.errors import Rejected
from schemas.ids import DeviceId, MakerId, MerchantId
from schemas.payments import Payer
from schemas.tables import devices, makers
from streams.gateway import provisioning
from streams.gateway.credentials import token_hash
from tests.integration.webhooks.world import World

PAYER = Payer(provider="stripe", customer="cus_1", payment_method="pm_1")


async def test_a_device_with_its_payer_sealed(world: World) -> None:
    key = os.urandom(32)
    async with world.database.transaction() as connection:
        maker, token = await provisioning.add_maker(connection, "  Klarblick \n GmbH ")
        device_id = await provisioning.add_device(
            connection, world.sealer, public_key=key, maker=maker, locale="sv-SE", currency="SEK", region="SE", payer=PAYER
        )
    [row] = await world.rows(select(makers).where(makers.c.id == maker))
    assert (row.name, row.token_hash) == ("Klarblick GmbH", token_hash(token))
    [device] = await world.rows(select(devices).where(devices.c.id == device_id))
    assert (device.public_key, device.locale, device.currency, device.region) == (key, "sv-SE", "SEK", "SE")
    assert (device.wear_state, device.payer_provider) == ("link_lost", "stripe")
    assert b"pm_1" not in device.payer_sealed
    assert Payer.model_validate_json(world.sealer.open(device.payer_sealed, f"payer:{device_id}")) == PAYER


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"public_key": bytes(31)}, "/public_key"),
        ({"public_key": bytes(32)}, "/public_key"),
        ({"public_key": b"\x01" + bytes(31)}, "/public_key"),
        ({"locale": "tlh"}, "/locale"),
        ({"locale": "not a locale"}, "/locale"),
        ({"currency": "XYZ"}, "/currency"),
        ({"currency": "eur"}, "/currency"),
        ({"region": "Sweden"}, "/region"),
    ],
)
async def test_a_device_that_cannot_be(world: World, wrong: dict[str, Any], pointer: str) -> None:
    right: dict[str, Any] = {"public_key": os.urandom(32), "locale": "de", "currency": "EUR"}
    with pytest.raises(Rejected) as refused:
        async with world.database.transaction() as connection:
            maker, _ = await provisioning.add_maker(connection, "Klarblick")
            await provisioning.add_device(connection, world.sealer, maker=maker, **{**right, **wrong})
    assert [error.pointer for error in refused.value.problem.errors] == [pointer]


async def test_a_key_is_paired_once_by_its_maker(world: World) -> None:
    key = os.urandom(32)
    async with world.database.transaction() as connection:
        one, other = [(await provisioning.add_maker(connection, "Klarblick"))[0] for _ in range(2)]

        async def pair(maker: MakerId) -> DeviceId:
            return await provisioning.add_device(
                connection, world.sealer, public_key=key, maker=maker, locale="de", currency="EUR"
            )

        first = await pair(one)
        with pytest.raises(Rejected, match=f"before, as {first}"):
            await pair(one)
        assert await pair(other) != first


async def test_whoever_is_not_there_has_nothing(world: World) -> None:
    async with world.database.transaction() as connection:
        with pytest.raises(Rejected, match="no maker"):
            await provisioning.add_device(
                connection, world.sealer, public_key=os.urandom(32), maker=MakerId.new(), locale="de", currency="EUR"
            )
        with pytest.raises(Rejected, match="no merchant"):
            await provisioning.add_endpoint(connection, world.sealer, MerchantId.new(), "https://shop.example/", None)
        merchant, _ = await provisioning.add_merchant(connection, "Buchladen")
        for event_types in ([], ["payment.proposed"]):
            with pytest.raises(Rejected, match="choose from"):
                await provisioning.add_endpoint(connection, world.sealer, merchant, "https://shop.example/", event_types)
        for name in ("", " ", "x" * 201):
            with pytest.raises(Rejected, match="a name has"):
                await provisioning.add_merchant(connection, name)


async def test_an_address_is_checked_before_it_is_kept() -> None:
    async with HttpClient() as client:
        await provisioning.check_address(client, "https://93.184.215.14/webhooks")
        for url in ("https://nowhere.invalid/", "https://127.0.0.1/", "http://93.184.215.14/"):
            with pytest.raises(Rejected) as refused:
                await provisioning.check_address(client, url)
            assert refused.value.problem.code == "endpoint-address-refused"
