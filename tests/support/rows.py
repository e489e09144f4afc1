"""Who takes part: makers, devices, merchants and what merchants sell, put into the database as the platform does it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from infra.sandbox.glasses import DeviceKey
from schemas.ids import DeviceId, EndpointId, MakerId, MerchantId
from schemas.money import Money
from schemas.payments import Payer
from schemas.tables import catalogue_products, metadata
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.gateway import provisioning
from tests.support.frames import gtin13

_numbers = count(1)


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


class Rows:
    """Every call adds new rows, each in a transaction of its own; nothing is shared between tests but what they share."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.sealer = sealer

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
        async with self.database.transaction() as connection:
            return Shop(*await provisioning.add_merchant(connection, name))

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
        row = {
            "merchant_id": shop.merchant_id,
            "gtin": "0" + product.gtin,
            "title": product.title,
            "language": language,
            "price_minor": product.price.minor,
            "price_currency": product.price.currency,
            "observed_at": datetime.now(UTC),
        }
        async with self.database.transaction() as connection:
            await connection.execute(insert(catalogue_products).values(row).on_conflict_do_nothing())
        return product

    async def endpoint(self, shop: Shop, url: str) -> tuple[EndpointId, str]:
        """With its `whsec_` secret."""
        async with self.database.transaction() as connection:
            return await provisioning.add_endpoint(connection, self.sealer, shop.merchant_id, url, None)

    async def count(self, table: str, **equal: object) -> int:
        """How many rows of the table have these values."""
        columns = metadata.tables[table].c
        query = select(func.count()).where(*(columns[name] == value for name, value in equal.items()))
        async with self.database.transaction() as connection:
            return int((await connection.execute(query)).scalar_one())
