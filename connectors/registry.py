"""Every connector there is, by name: adding one means one line here. Factories import their connector only when they are called,
so that a process that takes no payments loads no payment SDK."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from connectors.ports import PaymentConnector, ShopConnector, Translator
from schemas.errors import Misconfigured

Connector = TypeVar("Connector")


@dataclass(frozen=True)
class StripeAccount:
    """See `StripeConnector`: `address` is for a server that stands in for Stripe."""

    api_key: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    address: str | None = None
    return_url: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """What connectors are made from. Each takes what it needs, and says so (Misconfigured) where it is missing."""

    engine: AsyncEngine | None = None
    stripe: StripeAccount = StripeAccount()


def _catalogue(surroundings: Surroundings) -> ShopConnector:
    from connectors.shops.catalogue import CatalogueShop

    if surroundings.engine is None:
        raise Misconfigured("The shop `catalogue` needs a database. Set DATABASE_URL to PostgreSQL's address.")
    return CatalogueShop(surroundings.engine)


def _stripe(surroundings: Surroundings) -> PaymentConnector:
    from connectors.payments.stripe import StripeConnector

    account = surroundings.stripe
    return StripeConnector(
        account.api_key, webhook_secret=account.webhook_secret, address=account.address, return_url=account.return_url
    )


def _glossary(_: Surroundings) -> Translator:
    from connectors.translators.glossary import GlossaryTranslator

    return GlossaryTranslator()


SHOPS: Mapping[str, Callable[[Surroundings], ShopConnector]] = {"catalogue": _catalogue}
PAYMENTS: Mapping[str, Callable[[Surroundings], PaymentConnector]] = {"stripe": _stripe}
TRANSLATORS: Mapping[str, Callable[[Surroundings], Translator]] = {"glossary": _glossary}


def shop(name: str, surroundings: Surroundings) -> ShopConnector:
    return _pick(SHOPS, "shop", name)(surroundings)


def payments(name: str, surroundings: Surroundings) -> PaymentConnector:
    return _pick(PAYMENTS, "payment provider", name)(surroundings)


def translator(name: str, surroundings: Surroundings) -> Translator:
    return _pick(TRANSLATORS, "translator", name)(surroundings)


def _pick(registry: Mapping[str, Connector], kind: str, name: str) -> Connector:
    try:
        return registry[name]
    except KeyError:
        raise Misconfigured(f"There is no {kind} named {name!r}. Known: {', '.join(sorted(registry))}.") from None
