"""Offers from the table of merchant-uploaded products: every merchant at once, in one query."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from connectors.ports import ShopCapabilities
from schemas.commerce import Offer, Order, Product, Quote
from schemas.errors import Rejected, Retryable
from schemas.ids import MerchantId
from schemas.money import Money
from schemas.tables import catalogue_products, merchants

NAME = "catalogue"

_GTIN = re.compile(r"[0-9]{14}")
_OFFERS = select(catalogue_products, merchants.c.name.label("merchant_name")).join(
    merchants, catalogue_products.c.merchant_id == merchants.c.id
)


class CatalogueShop:
    """Finds and quotes. It takes no orders: the merchant hears of a sale through webhooks."""

    name = NAME
    # A price stands until the merchant uploads the next list; after a week without one it is marked as stale.
    capabilities = ShopCapabilities(fresh_for=timedelta(days=7), quote=True)
    quote_lifetime = timedelta(minutes=5)

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, gtin: str) -> Sequence[Offer]:
        """Cheapest first; several currencies one after another, as their prices cannot be compared here."""
        if not _GTIN.fullmatch(gtin):
            return []
        products = catalogue_products.c
        cheapest_first = (products.price_currency, products.price_minor, products.merchant_id)
        async with self._reading() as connection:
            rows = await connection.execute(_OFFERS.where(products.gtin == gtin).order_by(*cheapest_first))
            return [_offer(row) for row in rows]

    async def quote(self, offer: Offer, quantity: int) -> Quote:
        """Reads the price again. Raises Rejected("offer-expired") where the merchant has withdrawn the product."""
        fresh = await self._one(
            _OFFERS.where(catalogue_products.c.gtin == offer.product.gtin, catalogue_products.c.merchant_id == offer.merchant_id)
        )
        if fresh is None:
            raise Rejected("offer-expired", f"{offer.merchant_name} no longer sells this product.")
        return Quote(
            offer=fresh, quantity=quantity, total=fresh.price * quantity, expires_at=datetime.now(UTC) + self.quote_lifetime
        )

    async def place(self, quote: Quote, key: str) -> Order:
        raise _not_offered()

    async def fetch(self, reference: str) -> Order:
        raise _not_offered()

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[str]:
        raise _not_offered()

    async def _one(self, query: Select[Any]) -> Offer | None:
        async with self._reading() as connection:
            row = (await connection.execute(query)).one_or_none()
            return _offer(row) if row else None

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (OperationalError, InterfaceError, PoolTimeout):
            # The driver's text names hosts and users.
            raise Retryable("The product catalogue's database does not answer.") from None


def _offer(row: Row[Any]) -> Offer:
    return Offer(
        shop=NAME,
        merchant_id=MerchantId(row.merchant_id),
        merchant_name=row.merchant_name,
        product=Product(gtin=row.gtin, title=row.title, language=row.language, brand=row.brand),
        price=Money(minor=row.price_minor, currency=row.price_currency),
        observed_at=row.observed_at,
        url=row.url,
    )


def _not_offered() -> Rejected:
    return Rejected("capability-not-offered", "The merchants' catalogue takes no orders: it knows products and prices only.")
