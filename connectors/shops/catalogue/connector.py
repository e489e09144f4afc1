"""Offers from the current snapshots of the merchants' catalogues: every merchant at once, in one query."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from connectors.ports import ShopCapabilities
from schemas.commerce import Offer, Order, Product, ProductQuery, Quote
from schemas.errors import Rejected, Retryable
from schemas.ids import MerchantId
from schemas.money import Money
from schemas.tables import catalogue_products, catalogues, merchants

NAME = "catalogue"

_GTIN = re.compile(r"[0-9]{14}")
_products = catalogue_products.c
_OFFERS = (
    select(catalogue_products, merchants.c.name.label("merchant_name"))
    .join(merchants, _products.merchant_id == merchants.c.id)
    .join(catalogues, and_(catalogues.c.merchant_id == _products.merchant_id, catalogues.c.current == _products.snapshot))
    .where(_products.available, _products.price_minor.is_not(None))
)


class CatalogueShop:
    """Finds and quotes. It takes no orders: the merchant hears of a sale through webhooks."""

    name = NAME
    # A price stands until the merchant uploads the next list; after a week without one it is marked as stale.
    capabilities = ShopCapabilities(fresh_for=timedelta(days=7), quote=True)
    quote_lifetime = timedelta(minutes=5)

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, query: ProductQuery) -> Sequence[Offer]:
        """By the GTIN what every merchant asks, by a merchant's own name for the product what that merchant asks. Cheapest first;
        several currencies one after another, as their prices cannot be compared here."""
        if not (wanted := _matching(query)):
            return []
        async with self._reading() as connection:
            rows = (await connection.execute(_OFFERS.where(or_(*wanted)))).all()
        now = datetime.now(UTC)
        offers = [_offer(row, now) for row in rows]
        return sorted(offers, key=lambda offer: (offer.price.currency, offer.price.minor, offer.merchant_id))

    async def quote(self, offer: Offer, quantity: int) -> Quote:
        """Reads the price again. Raises Rejected("offer-expired") where the merchant has withdrawn the product."""
        product = offer.product
        # An offer that was made before products had names of their own has only its GTIN.
        same = _products.product_id == product.product_id if product.product_id else _products.gtin == product.gtin
        fresh = await self._one(_OFFERS.where(same, _products.merchant_id == offer.merchant_id))
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
            return _offer(row, datetime.now(UTC)) if row else None

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (OperationalError, InterfaceError, PoolTimeout):
            # The driver's text names hosts and users.
            raise Retryable("The product catalogue's database does not answer.") from None


def _matching(query: ProductQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.gtin and _GTIN.fullmatch(query.gtin):
        found.append(_products.gtin == query.gtin)
    if query.merchant_id and query.product_id:
        found.append((_products.merchant_id == query.merchant_id) & (_products.product_id == query.product_id))
    return found


def _offer(row: Row[Any], now: datetime) -> Offer:
    return Offer(
        shop=NAME,
        merchant_id=MerchantId(row.merchant_id),
        merchant_name=row.merchant_name,
        product=Product(gtin=row.gtin, product_id=row.product_id, title=row.title, language=row.language, brand=row.brand),
        price=Money(minor=_price(row, now), currency=row.price_currency),
        observed_at=row.observed_at,
        url=row.url,
    )


def _price(row: Row[Any], now: datetime) -> int:
    """The sale's price while the sale is on, though the snapshot was made before it began."""
    begun = row.sale_from is None or row.sale_from <= now
    over = row.sale_until is not None and row.sale_until <= now
    return int(row.sale_minor if row.sale_minor is not None and begun and not over else row.price_minor)


def _not_offered() -> Rejected:
    return Rejected("capability-not-offered", "The merchants' catalogue takes no orders: it knows products and prices only.")
