"""Who takes part: makers, devices, merchants and what merchants sell, put into the database as the platform does it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from types import MappingProxyType

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from connectors.shops.catalogue.importer import CatalogueRow
from infra.sandbox.glasses import DeviceKey
from schemas import commerce
from schemas.ids import AccountId, DeviceId, EndpointId, JourneyId, MakerId, MerchantId, OfferId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import CartLine, Payer, PresenceMethod, ProposalTerms
from schemas.tables import metadata, offers, payments, proposals, provider_accounts
from streams.catalogues import store as catalogues
from streams.catalogues.service import import_prices
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.gateway import provisioning
from streams.payments import accounts
from tests.support.frames import gtin13

_numbers = count(1)

STRIPE = {"api_key": "sk_test_nobodyknows", "webhook_secret": "whsec_nobody_knows_this_one", "address": "http://127.0.0.1:9"}
"""Credentials of an account at a server that does not answer."""


@dataclass(frozen=True)
class PairedGlasses:
    device_id: DeviceId
    key: DeviceKey


@dataclass(frozen=True)
class Shop:
    merchant_id: MerchantId
    token: str


@dataclass(frozen=True)
class Product:
    """`gtin` has 13 digits, as on the package."""

    gtin: str
    title: str
    price: Money


@dataclass(frozen=True)
class ApprovedPayment:
    id: PaymentId
    proposal_id: ProposalId
    merchant_id: MerchantId
    total: Money
    account_id: AccountId


class Rows:
    """Every call adds new rows, each in a transaction of its own; nothing is shared between tests but what they share."""

    def __init__(
        self, database: Database, sealer: Sealer, accounts: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    ) -> None:
        """`accounts`: by provider, the credentials that every new merchant has; those of STRIPE unless others are given."""
        self.database = database
        self.sealer = sealer
        self.accounts = accounts or {"stripe": STRIPE}

    async def maker(self, name: str = "Klarblick") -> tuple[MakerId, str]:
        """With the token of its cloud."""
        async with self.database.transaction() as connection:
            return await provisioning.add_maker(connection, name)

    async def glasses(
        self,
        *,
        maker: MakerId | None = None,
        payer: Payer | None = None,
        locale: str = "de-DE",
        currency: str = "EUR",
        region: str | None = "DE",
    ) -> PairedGlasses:
        key = DeviceKey()
        maker_id = maker or (await self.maker())[0]
        async with self.database.transaction() as connection:
            device_id = await provisioning.add_device(
                connection,
                self.sealer,
                public_key=key.public,
                maker=maker_id,
                locale=locale,
                currency=currency,
                region=region,
                payer=payer,
            )
        return PairedGlasses(device_id, key)

    async def merchant(self, name: str = "Kvarteret") -> Shop:
        """With its accounts."""
        async with self.database.transaction() as connection:
            shop = Shop(*await provisioning.add_merchant(connection, name))
            for provider, credentials in self.accounts.items():
                await accounts.add(connection, self.sealer, shop.merchant_id, provider, credentials)
        return shop

    async def account(self, shop: Shop, provider: str, credentials: Mapping[str, str] = MappingProxyType({})) -> AccountId:
        """With any provider, also one that there is no connector for."""
        account_id = AccountId.new()
        sealed = self.sealer.seal(json.dumps(dict(credentials)).encode(), f"account:{account_id}")
        row = {
            "id": account_id,
            "merchant_id": shop.merchant_id,
            "provider": provider,
            "external_id": f"{provider}-account",
            "credentials_sealed": sealed,
        }
        async with self.database.transaction() as connection:
            await connection.execute(insert(provider_accounts).values(row))
        return account_id

    async def account_of(self, shop: Shop, provider: str = "stripe") -> AccountId:
        async with self.database.transaction() as connection:
            query = select(provider_accounts.c.id).where(
                provider_accounts.c.merchant_id == shop.merchant_id, provider_accounts.c.provider == provider
            )
            return AccountId((await connection.execute(query)).scalar_one())

    async def product(
        self,
        shop: Shop,
        *,
        gtin: str | None = None,
        title: str = "Organic milk",
        price: Money | None = None,
        language: str = "en",
    ) -> Product:
        """With a GTIN nobody else has in this test session, unless one is given; giving it again changes nothing."""
        product = Product(gtin or gtin13(next(_numbers)), title, price or Money.of(1795, "SEK"))
        known = commerce.Product(gtin="0" + product.gtin, product_id="0" + product.gtin, title=title, language=language)
        async with self.database.transaction() as connection:
            current = await catalogues.current(connection, shop.merchant_id)
            if current and await catalogues.find_products(connection, shop.merchant_id, current[0].number, [known.product_id]):
                return product
            row = CatalogueRow(line=1, product=known, price=product.price, url=None)
            await import_prices(connection, shop.merchant_id, [row], datetime.now(UTC))
        return product

    async def endpoint(self, shop: Shop, url: str) -> tuple[EndpointId, str]:
        """With its `whsec_` secret."""
        async with self.database.transaction() as connection:
            return await provisioning.add_endpoint(connection, self.sealer, shop.merchant_id, url, None)

    async def approved_payment(
        self,
        total: Money | None = None,
        *,
        glasses: PairedGlasses | None = None,
        provider: str = "stripe",
        shop: Shop | None = None,
        capture: bool = True,
    ) -> ApprovedPayment:
        """As the wearer's yes leaves it, with the offer and the proposal it stands on."""
        shop, glasses = shop or await self.merchant(), glasses or await self.glasses()
        known = provider in self.accounts
        account = await self.account_of(shop, provider) if known else await self.account(shop, provider)
        payment = ApprovedPayment(PaymentId.new(), ProposalId.new(), shop.merchant_id, total or Money.of(1299, "EUR"), account)
        later = datetime.now(UTC) + timedelta(minutes=5)
        common = {"journey_id": JourneyId.new(), "device_id": glasses.device_id, "merchant_id": shop.merchant_id}
        money = {"total_minor": payment.total.minor, "total_currency": payment.total.currency}
        offer = {
            "id": OfferId.new(),
            **common,
            "merchant_name": "Kvarteret",
            "gtin": "0" + gtin13(0),
            "title": "Organic milk",
            "price_minor": 1299,
            "price_currency": "EUR",
            "observed_at": datetime.now(UTC),
            "expires_at": later,
            "evidence": {},
        }
        proposal = {
            "id": payment.proposal_id,
            **common,
            **money,
            "offer_id": offer["id"],
            "terms": _terms(payment, glasses, later).model_dump(mode="json"),
            "digest": "0" * 64,
            "nonce": str(payment.proposal_id),
            "state": "approved",
            "expires_at": later,
        }
        row = {
            "id": payment.id,
            "proposal_id": payment.proposal_id,
            "order_id": OrderId.new(),
            **common,
            **money,
            "state": "approved",
            "provider": provider,
            "account_id": account,
            "capture": capture,
            "locale": "de-DE",
            "submit_by": later,
        }
        async with self.database.transaction() as connection:
            for table, values in ((offers, offer), (proposals, proposal), (payments, row)):
                await connection.execute(insert(table).values(values))
        return payment

    async def count(self, table: str, **equal: object) -> int:
        """How many rows of the table have these values."""
        columns = metadata.tables[table].c
        query = select(func.count()).where(*(columns[name] == value for name, value in equal.items()))
        async with self.database.transaction() as connection:
            return int((await connection.execute(query)).scalar_one())


def _terms(payment: ApprovedPayment, glasses: PairedGlasses, expires_at: datetime) -> ProposalTerms:
    line = CartLine(title="Organic milk", gtin="0" + gtin13(0), quantity=1, unit_price=payment.total, total=payment.total)
    return ProposalTerms(
        proposal_id=payment.proposal_id,
        device_id=glasses.device_id,
        merchant_id=payment.merchant_id,
        payee="Kvarteret",
        total=payment.total,
        cart=(line,),
        text=f"Pay {payment.total} to Kvarteret?",
        presence=(PresenceMethod.PRESS,),
        nonce="n" * 32,
        expires_at=expires_at,
    )
