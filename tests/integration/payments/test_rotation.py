"""Keys rotate: everything that is sealed is sealed anew, while the platform works with it; then the old key may go."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select, update

from infra.local.stack import LocalStack
from schemas.errors import Misconfigured
from schemas.ids import MerchantId
from schemas.payments import Payer
from schemas.tables import devices, endpoints, idempotency_keys, provider_accounts
from streams.core import resealing
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.gateway import merchant_store
from streams.gateway.merchant_store import StoredAnswer
from tests.integration.payments.operated import Operated
from tests.support.rows import Rows
from tests.support.servers import migrated_database


def a_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


OLD, NEW = a_key(), a_key()
BOTH = f"{NEW},{OLD}"
KEY = "a key of {the} merchant's"


@pytest.fixture
async def sealed_by_the_old_key(stack: LocalStack) -> AsyncIterator[Operated]:
    url = await migrated_database(stack.environment["DATABASE_URL"])
    operated = Operated(Database(create_engine(url)), url, Sealer(OLD))
    rows = Rows(operated.database, operated.sealer)
    for _ in range(5):
        await rows.glasses(payer=Payer(provider="stripe", customer="cus_1", payment_method="pm_1"))
    await rows.glasses()  # has no means of payment
    for _ in range(3):
        shop = await rows.merchant()  # has an account
        await rows.endpoint(shop, "https://shop.example/hooks")
        await keep_answer(operated, shop.merchant_id)
    async with operated.database.transaction() as connection:  # a deleted endpoint has no secret any more
        one = select(endpoints.c.id).limit(1).scalar_subquery()
        await connection.execute(update(endpoints).where(endpoints.c.id == one).values(secret_sealed=b""))
    yield operated
    await operated.database.close()


async def keep_answer(operated: Operated, merchant_id: MerchantId) -> None:
    sealed = operated.sealer.seal(b'{"secret": "whsec_1"}', f"answer:{merchant_id}:{KEY}")
    answer = StoredAnswer("0" * 64, 201, {"sealed": base64.b64encode(sealed).decode()})
    async with operated.database.transaction() as connection:
        await merchant_store.keep_answer(connection, merchant_id, KEY, answer)


async def opened(operated: Operated, sealer: Sealer) -> list[bytes]:
    """Everything, as those open it who use it."""
    async with operated.database.transaction() as connection:
        payers = (await connection.execute(select(devices).where(devices.c.payer_sealed.is_not(None)))).all()
        secrets = (await connection.execute(select(endpoints).where(endpoints.c.secret_sealed != b""))).all()
        credentials = (await connection.execute(select(provider_accounts))).all()
        answers = (await connection.execute(select(idempotency_keys))).all()
    return [
        *(sealer.open(row.payer_sealed, f"payer:{row.id}") for row in payers),
        *(sealer.open(row.secret_sealed, f"endpoint:{row.id}") for row in secrets),
        *(sealer.open(row.credentials_sealed, f"account:{row.id}") for row in credentials),
        *(sealer.open(base64.b64decode(row.response["sealed"]), f"answer:{row.merchant_id}:{row.key}") for row in answers),
    ]


async def stored(operated: Operated) -> list[Any]:
    async with operated.database.transaction() as connection:
        return [
            row
            for sealed in resealing.EVERYTHING
            for row in (await connection.execute(select(*sealed.key, sealed.column).order_by(*sealed.key))).all()
        ]


async def test_everything_opens_with_the_new_key_alone(sealed_by_the_old_key: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resealing, "_AT_ONCE", 2)
    operated = sealed_by_the_old_key
    before = await opened(operated, Sealer(OLD))
    assert len(before) == 5 + 2 + 3 + 3
    dry = await operated.run("secrets", "rotate", "--dry-run", "--json", AUGENBLICK_SECRET_KEY=BOTH)
    assert [(count["current"], count["anew"]) for count in json.loads(dry.stdout)["counts"]] == [(0, 5), (0, 2), (0, 3), (0, 3)]
    assert await opened(operated, Sealer(OLD)) == before

    done = await operated.run("secrets", "rotate", AUGENBLICK_SECRET_KEY=BOTH)
    assert (done.exit_code, "the older keys may be taken out" in done.output) == (0, True), done.output
    assert await opened(operated, Sealer(NEW)) == before
    with pytest.raises(Misconfigured):
        await opened(operated, Sealer(OLD))

    after = await stored(operated)
    again = await operated.run("secrets", "rotate", "--json", AUGENBLICK_SECRET_KEY=NEW)
    assert [(count["current"], count["anew"]) for count in json.loads(again.stdout)["counts"]] == [(5, 0), (2, 0), (3, 0), (3, 0)]
    assert await stored(operated) == after


async def test_the_key_may_stand_in_a_file(sealed_by_the_old_key: Operated, tmp_path: Any) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{NEW}\n{OLD}\n")
    done = await sealed_by_the_old_key.run("secrets", "rotate", AUGENBLICK_SECRET_KEY="", AUGENBLICK_SECRET_KEY_FILE=str(file))
    assert done.exit_code == 0, done.output
    assert len(await opened(sealed_by_the_old_key, Sealer(NEW))) == 13


async def test_where_one_thing_does_not_open_nothing_is_changed(sealed_by_the_old_key: Operated) -> None:
    operated = sealed_by_the_old_key
    # All opens but the last thing that is looked at.
    async with operated.database.transaction() as connection:
        merchant_id = (await connection.execute(select(idempotency_keys.c.merchant_id).limit(1))).scalar_one()
        foreign = base64.b64encode(Sealer(a_key()).seal(b"{}", f"answer:{merchant_id}:{KEY}")).decode()
        where = idempotency_keys.c.merchant_id == merchant_id
        await connection.execute(update(idempotency_keys).where(where).values(response={"sealed": foreign}))
    before = await stored(operated)
    for keys in (BOTH, NEW, f"{NEW},{a_key()}"):
        refused = await operated.run("secrets", "rotate", AUGENBLICK_SECRET_KEY=keys)
        assert refused.exit_code == 1
        assert "does not hold the key it was sealed with" in refused.output
        assert await stored(operated) == before


async def test_one_that_was_broken_off_is_taken_up_again(
    sealed_by_the_old_key: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    operated = sealed_by_the_old_key
    monkeypatch.setattr(resealing, "_AT_ONCE", 2)

    class Dies(Sealer):
        left = 17  # the survey opens 13 of them, then 4 more are sealed anew

        def open(self, sealed: bytes, context: str) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().open(sealed, context)

    with pytest.raises(KeyboardInterrupt):
        await resealing.reseal(operated.database, Dies(BOTH))
    half = await resealing.survey(operated.database, Sealer(BOTH))
    assert (half[0].current, half[0].anew) == (4, 1)
    assert len(await opened(operated, Sealer(BOTH))) == 13
    await resealing.reseal(operated.database, Sealer(BOTH))
    assert len(await opened(operated, Sealer(NEW))) == 13


async def test_it_may_run_while_others_write(sealed_by_the_old_key: Operated) -> None:
    """Roles with both keys seal with the new one; what they write meanwhile is not overwritten."""
    operated = sealed_by_the_old_key
    both = Sealer(BOTH)
    payer = Payer(provider="stripe", customer="cus_2", payment_method="pm_2")
    async with operated.database.transaction() as connection:
        query = select(devices.c.id).where(devices.c.payer_sealed.is_not(None))
        ids = list((await connection.execute(query)).scalars())

    async def pair_again() -> None:
        for device_id in ids:
            sealed = both.seal(payer.model_dump_json().encode(), f"payer:{device_id}")
            async with operated.database.transaction() as connection:
                await connection.execute(update(devices).where(devices.c.id == device_id).values(payer_sealed=sealed))

    await asyncio.gather(pair_again(), resealing.reseal(operated.database, both), resealing.reseal(operated.database, both))
    payers = (await opened(operated, Sealer(NEW)))[: len(ids)]
    assert [Payer.model_validate_json(each) for each in payers] == [payer] * 5


async def test_somebody_who_seals_with_the_old_key_only_is_noticed(
    sealed_by_the_old_key: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    operated = sealed_by_the_old_key
    rows = Rows(operated.database, Sealer(OLD))
    real = resealing._pass

    async def beside_an_old_role(database: Database, sealer: Sealer, sealed: resealing.Sealed, *, change: bool) -> Any:
        await rows.glasses(payer=Payer(provider="stripe", customer="c", payment_method="m"))
        return await real(database, sealer, sealed, change=change)

    monkeypatch.setattr(resealing, "_pass", beside_an_old_role)
    with pytest.raises(Misconfigured, match="start every role again"):
        await resealing.reseal(operated.database, Sealer(BOTH))
