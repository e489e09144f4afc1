from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from infra.local.stack import LocalStack
from schemas.events import new_event
from schemas.ids import JourneyId
from schemas.money import Money
from schemas.payments import Payer, PaymentDue
from schemas.tables import attempts, payments
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from tests.integration.payments.operated import Operated, register
from tests.support.payments import NAME, Case, Provider
from tests.support.rows import Rows
from tests.support.servers import migrated_database


async def a_case(database: Database, sealer: Sealer, rows: Rows, *, capture: bool = True) -> Case:
    glasses = await rows.glasses(payer=Payer(provider=NAME, customer="c", payment_method="m"))
    payment = await rows.approved_payment(Money.of(1895, "SEK"), glasses=glasses, provider=NAME, capture=capture)
    due = new_event("payment.due", PaymentDue(payment_id=payment.id), source="/test", journeyid=JourneyId.new())
    return Case(database, sealer, Provider(), payment.id, due)


@pytest.fixture(autouse=True)
async def nothing_is_due_from_before(database: Database) -> None:
    """What other tests have left unfinished is nothing for the janitors of this one."""
    never = datetime(9000, 1, 1, tzinfo=UTC)
    async with database.transaction() as connection:
        await connection.execute(update(attempts).where(attempts.c.next_ask_at.is_not(None)).values(next_ask_at=never))
        await connection.execute(update(payments).where(payments.c.state == "approved").values(updated_at=never))


@pytest.fixture
async def case(database: Database, sealer: Sealer, rows: Rows) -> Case:
    """The money is to be taken at once."""
    return await a_case(database, sealer, rows)


@pytest.fixture
async def reserved(database: Database, sealer: Sealer, rows: Rows) -> Case:
    """The money is reserved, for the merchant to take."""
    case = await a_case(database, sealer, rows, capture=False)
    await case.handle()
    assert await case.state() == "authorised"
    return case


@pytest.fixture(scope="module")
async def operated_url(stack: LocalStack) -> str:
    """A database of its own: what these tests leave unfinished is nothing for the janitors of others."""
    return await migrated_database(stack.environment["DATABASE_URL"])


@pytest.fixture
async def operated(operated_url: str, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Operated]:
    """With a provider that the test invents the answers of."""
    register(monkeypatch)
    database = Database(create_engine(operated_url))
    yield Operated(database, operated_url, sealer)
    await database.close()
