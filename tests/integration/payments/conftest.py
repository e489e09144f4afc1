import pytest

from schemas.events import new_event
from schemas.ids import JourneyId
from schemas.money import Money
from schemas.payments import Payer, PaymentDue
from streams.core.database import Database
from streams.core.sealing import Sealer
from tests.integration.payments.operated import Operated, register
from tests.support.payments import NAME, Case, Provider
from tests.support.rows import Rows


async def a_case(database: Database, sealer: Sealer, rows: Rows, *, capture: bool = True) -> Case:
    glasses = await rows.glasses(payer=Payer(provider=NAME, customer="c", payment_method="m"))
    payment = await rows.approved_payment(Money.of(1895, "SEK"), glasses=glasses, provider=NAME, capture=capture)
    due = new_event("payment.due", PaymentDue(payment_id=payment.id), source="/test", journeyid=JourneyId.new())
    return Case(database, sealer, Provider(), payment.id, due)


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


@pytest.fixture
def operated(database: Database, database_url: str, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> Operated:
    """With a provider that the test invents the answers of."""
    register(monkeypatch)
    return Operated(database, database_url, sealer)
