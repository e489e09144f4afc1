"""A connection is open for as long as the device's row names it; every gateway looks for itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest

from infra.sandbox.glasses import DeviceKey
from schemas.ids import DeviceId
from streams.core.database import Database
from streams.gateway import links, store
from streams.gateway.links import Ending, Links
from tests.integration.intents.world import change_key, revoke
from tests.support.rows import Rows


class Session:
    """Says that it is the device's connection, and stays. `hangs`: it cannot be ended, as when it waits for a broker."""

    def __init__(self, database: Database, device_id: DeviceId, *, hangs: bool = False) -> None:
        self._database = database
        self._device_id = device_id
        self._hangs = hangs
        self.link: str | None = None

    async def run(self) -> None:
        name = str(uuid4())
        async with self._database.transaction() as connection:
            device = await store.find_device(connection, self._device_id)
            assert device is not None
            assert await store.set_link(connection, device, name)
        self.link = name
        try:
            await asyncio.sleep(60)
        finally:
            if self._hangs:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(3)


class Gateway:
    """One of several."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._links = Links(rows.database)
        self._watching = asyncio.create_task(self._links.watch())

    async def connect(self, device_id: DeviceId, *, hangs: bool = False) -> "asyncio.Task[Ending | None]":
        session = Session(self._rows.database, device_id, hangs=hangs)
        connected = asyncio.create_task(self._links.keep_newest(device_id, session))
        while session.link is None:
            await asyncio.sleep(0.01)
        return connected

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])


@pytest.fixture
async def gateways(rows: Rows) -> AsyncIterator[tuple[Gateway, Gateway]]:
    both = Gateway(rows), Gateway(rows)
    yield both
    for gateway in both:
        await gateway.close()


async def ended(connected: "asyncio.Task[Ending | None]", within_s: float = 20.0) -> Ending | None:
    async with asyncio.timeout(within_s):
        return await connected


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_revoked_devices_connection_ends_within_a_second(
    rows: Rows, gateways: tuple[Gateway, Gateway], hangs: bool
) -> None:
    glasses, others = await rows.glasses(), await rows.glasses()
    connected = await gateways[0].connect(glasses.device_id, hangs=hangs)
    bystander = await gateways[0].connect(others.device_id)
    await asyncio.sleep(1)
    assert not connected.done()
    await revoke(rows, glasses.device_id)
    started = time.perf_counter()
    assert await ended(connected) is Ending.REVOKED
    # The query between the two has the rest of the second; a slow machine's may take longer, and less than what hangs.
    assert links._LOOK_EVERY_S + links._TAKES_LEAVE_S < 0.7
    assert time.perf_counter() - started < 2.5
    assert not bystander.done()
    bystander.cancel()


async def test_a_device_with_another_key_has_to_connect_anew(rows: Rows, gateways: tuple[Gateway, Gateway]) -> None:
    glasses = await rows.glasses()
    connected = await gateways[0].connect(glasses.device_id)
    await change_key(rows, glasses.device_id, DeviceKey())
    assert await ended(connected) is Ending.KEY_CHANGED
    again = await gateways[0].connect(glasses.device_id)
    await asyncio.sleep(1)
    assert not again.done()
    again.cancel()


async def test_the_newest_connection_counts_wherever_it_is(rows: Rows, gateways: tuple[Gateway, Gateway]) -> None:
    glasses = await rows.glasses()
    first = await gateways[0].connect(glasses.device_id)
    second = await gateways[0].connect(glasses.device_id)
    assert await ended(first) is Ending.REPLACED
    third = await gateways[1].connect(glasses.device_id)
    assert await ended(second) is Ending.REPLACED
    await asyncio.sleep(1)
    assert not third.done()
    third.cancel()


async def test_whoever_is_revoked_while_connecting_is_not_let_in(rows: Rows) -> None:
    """The credentials were right when they were looked at."""
    revoked, changed = await rows.glasses(), await rows.glasses()
    async with rows.database.transaction() as connection:
        looked_at = [await store.find_device(connection, one.device_id) for one in (revoked, changed)]
    await revoke(rows, revoked.device_id)
    await change_key(rows, changed.device_id, DeviceKey())
    async with rows.database.transaction() as connection:
        for device in looked_at:
            assert device is not None
            assert not await store.set_link(connection, device, "link")
