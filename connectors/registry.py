"""Every connector there is, by name: adding one means one line here. Factories import their connector only when they are called,
so that a process that takes no payments loads no payment SDK."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TypeVar, get_args

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from connectors.credentials import Credentials
from connectors.ports import PaymentConnector, ShopConnector, Translator
from schemas.errors import Misconfigured

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Surroundings:
    """What shops and translators are made from. Each takes what it needs, and says so (Misconfigured) where it is missing."""

    engine: AsyncEngine | None = None


def _catalogue(surroundings: Surroundings) -> ShopConnector:
    from connectors.shops.catalogue import CatalogueShop

    if surroundings.engine is None:
        raise Misconfigured("The shop `catalogue` needs a database. Set DATABASE_URL to PostgreSQL's address.")
    return CatalogueShop(surroundings.engine)


def _glossary(_: Surroundings) -> Translator:
    from connectors.translators.glossary import GlossaryTranslator

    return GlossaryTranslator()


SHOPS: Mapping[str, Callable[[Surroundings], ShopConnector]] = {"catalogue": _catalogue}
TRANSLATORS: Mapping[str, Callable[[Surroundings], Translator]] = {"glossary": _glossary}
PAYMENTS: Mapping[str, str] = {
    "alipay": "connectors.payments.alipay",
    "stripe": "connectors.payments.stripe",
    "wechat_pay": "connectors.payments.wechat_pay",
}
"""The packages that offer `connect`."""


def shop(name: str, surroundings: Surroundings) -> ShopConnector:
    return _pick(SHOPS, "shop", name)(surroundings)


def payments(
    name: str, credentials: Mapping[str, str], *, notify_url: str | None = None, strict: bool = True
) -> PaymentConnector:
    """`notify_url` is where the provider shall send what happens to this account. `strict` is for credentials that are new;
    without it those of an account in use are taken, though something in them may have expired. Raises Misconfigured."""
    connector: PaymentConnector = import_module(_pick(PAYMENTS, "payment provider", name)).connect(
        credentials, notify_url=notify_url, strict=strict
    )
    return connector


def credential_fields(name: str) -> Mapping[str, bool]:
    """The fields that a payment provider's credentials have, each with whether it is a secret. Raises Misconfigured."""
    package = _pick(PAYMENTS, "payment provider", name)
    import_module(package)
    fields: dict[str, bool] = {}
    for model in Credentials.__subclasses__():
        if model.__module__.startswith(f"{package}.") or model.__module__ == package:
            fields |= {
                field: SecretStr in (described.annotation, *get_args(described.annotation))
                for field, described in model.model_fields.items()
            }
    return fields


def translator(name: str, surroundings: Surroundings) -> Translator:
    return _pick(TRANSLATORS, "translator", name)(surroundings)


def _pick(registry: Mapping[str, Entry], kind: str, name: str) -> Entry:
    try:
        return registry[name]
    except KeyError:
        raise Misconfigured(f"There is no {kind} named {name!r}. Known: {', '.join(sorted(registry))}.") from None
