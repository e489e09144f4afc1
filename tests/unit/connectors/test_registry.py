"""The closed list of connectors."""

import subprocess
import sys

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from connectors import registry
from connectors.ports import ShopConnector, Translator
from infra.sandbox import localstripe
from schemas.errors import Misconfigured


async def test_every_name_makes_a_connector_of_that_name() -> None:
    engine = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    surroundings = registry.Surroundings(engine=engine)
    made: list[ShopConnector | Translator] = [
        *(registry.shop(name, surroundings) for name in registry.SHOPS),
        *(registry.translator(name, surroundings) for name in registry.TRANSLATORS),
    ]
    assert [each.name for each in made] == [*registry.SHOPS, *registry.TRANSLATORS]
    await engine.dispose()


async def test_a_payment_connector_is_made_from_its_credentials() -> None:
    credentials = localstripe.credentials("http://127.0.0.1:1")
    connector = registry.payments("stripe", credentials, notify_url="https://platform.example/v1/notifications")
    assert (connector.name, connector.account) == ("stripe", "default")
    await connector.close()


@pytest.mark.parametrize("name", registry.PAYMENTS)
def test_every_payment_provider_says_what_it_wants_and_repeats_nothing(name: str) -> None:
    with pytest.raises(Misconfigured, match="The fields are ") as raised:
        registry.payments(name, {"colour": "TOPSECRET"})
    fields = str(raised.value).rsplit("The fields are ", 1)[1].rstrip(".").split(", ")
    assert len(fields) > 2 and "colour" not in fields
    with pytest.raises(Misconfigured) as raised:
        registry.payments(name, dict.fromkeys(fields, "TOPSECRET"))
    assert "TOPSECRET" not in str(raised.value)


def test_an_unknown_name_says_which_are_known() -> None:
    surroundings = registry.Surroundings()
    for pick in (
        lambda: registry.shop("nosuch", surroundings),
        lambda: registry.translator("nosuch", surroundings),
        lambda: registry.payments("nosuch", {}),
    ):
        with pytest.raises(Misconfigured, match=r"'nosuch'.*Known: "):
            pick()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Misconfigured, match="DATABASE_URL"):
        registry.shop("catalogue", registry.Surroundings())
    with pytest.raises(Misconfigured, match="api_key"):
        registry.payments("stripe", {"address": "http://127.0.0.1:1"})


@pytest.mark.parametrize(
    "use", ["registry.translator('glossary', registry.Surroundings())", "registry.payments('wechat_pay', {})", ""]
)
def test_a_process_that_takes_no_payments_with_it_does_not_load_stripes_sdk(use: str) -> None:
    program = f"""
import sys
from connectors import registry
from schemas.errors import Misconfigured
try:
    {use or "pass"}
except Misconfigured:
    pass
assert 'stripe' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
