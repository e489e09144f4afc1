"""The closed list of connectors."""

import subprocess
import sys

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from connectors import registry
from connectors.ports import PaymentConnector, ShopConnector, Translator
from schemas.errors import Misconfigured

ACCOUNT = registry.StripeAccount(api_key="sk_test_123", webhook_secret="whsec_1", address="http://127.0.0.1:1")


async def test_every_name_makes_a_connector_of_that_name() -> None:
    engine = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    surroundings = registry.Surroundings(engine=engine, stripe=ACCOUNT)
    made: list[ShopConnector | PaymentConnector | Translator] = [
        *(registry.shop(name, surroundings) for name in registry.SHOPS),
        *(registry.payments(name, surroundings) for name in registry.PAYMENTS),
        *(registry.translator(name, surroundings) for name in registry.TRANSLATORS),
    ]
    assert [each.name for each in made] == [*registry.SHOPS, *registry.PAYMENTS, *registry.TRANSLATORS]
    await engine.dispose()


@pytest.mark.parametrize("pick", [registry.shop, registry.payments, registry.translator])
def test_an_unknown_name_says_which_are_known(pick) -> None:
    with pytest.raises(Misconfigured, match=r"'nosuch'.*Known: "):
        pick("nosuch", registry.Surroundings())


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Misconfigured, match="DATABASE_URL"):
        registry.shop("catalogue", registry.Surroundings())
    with pytest.raises(Misconfigured, match="AUGENBLICK_STRIPE_API_KEY"):
        registry.payments("stripe", registry.Surroundings())


def test_secrets_are_not_shown() -> None:
    assert "sk_test" not in repr(registry.Surroundings(stripe=ACCOUNT))
    assert "whsec" not in repr(registry.Surroundings(stripe=ACCOUNT))


def test_a_process_that_takes_no_payments_loads_no_payment_sdk() -> None:
    program = (
        "import sys; from connectors import registry; registry.translator('glossary', registry.Surroundings());"
        "assert 'stripe' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
