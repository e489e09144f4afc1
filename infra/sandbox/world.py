"""The people around the platform in the sandbox: a glasses maker, two merchants with their catalogues, wearers with glasses and
a means of payment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Literal

from sqlalchemy import delete, select

from connectors.shops.catalogue.importer import import_catalogue, parse_catalogue
from infra.sandbox import localstripe
from infra.sandbox.glasses import DeviceKey
from infra.sandbox.sessions import Wearer
from schemas.ids import DeviceId, MakerId, MerchantId
from schemas.tables import catalogue_products, merchants
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.gateway import provisioning

SHOPS = {"Kvartersbutiken": "kvartersbutiken.csv", "Eckladen": "eckladen.csv"}
GERMAN = Wearer(locale="de-DE", currency="EUR", region="DE")


@dataclass(frozen=True)
class Merchant:
    id: MerchantId
    name: str
    token: str
    webhook_secret: str


@dataclass(frozen=True)
class Device:
    id: DeviceId
    key: DeviceKey


class World:
    """`provider` is localstripe's address, where each wearer has a card."""

    def __init__(self, database: Database, sealer: Sealer, provider: str) -> None:
        self._database = database
        self._sealer = sealer
        self._provider = provider
        self.maker: MakerId
        self.maker_token = ""
        self.merchants: list[Merchant] = []

    async def settle(self, webhook_url: str) -> Sequence[Merchant]:
        """Let the maker and the merchants in, each with a catalogue and a webhook address. Where the sandbox was settled
        before, the shops of that time no longer sell anything."""
        async with self._database.transaction() as connection:
            closed = select(merchants.c.id).where(merchants.c.name.in_(SHOPS))
            await connection.execute(delete(catalogue_products).where(catalogue_products.c.merchant_id.in_(closed)))
            self.maker, self.maker_token = await provisioning.add_maker(connection, "Sandbox Glasses")
            for name, file in SHOPS.items():
                merchant, token = await provisioning.add_merchant(connection, name)
                _, secret = await provisioning.add_endpoint(connection, self._sealer, merchant, webhook_url, None)
                rows = parse_catalogue(files("infra.sandbox").joinpath(f"catalogues/{file}").read_bytes())
                await import_catalogue(connection, merchant, rows, datetime.now(UTC))
                self.merchants.append(Merchant(merchant, name, token, secret))
        return self.merchants

    async def wearer(self, wearer: Wearer = GERMAN, card: Literal["ok", "declined", "needs_action"] = "ok") -> Device:
        """New glasses, paired, with a card."""
        key = DeviceKey()
        payer = await localstripe.seed_payer(self._provider, kind=card)
        async with self._database.transaction() as connection:
            device = await provisioning.add_device(
                connection,
                self._sealer,
                public_key=key.public,
                maker=self.maker,
                locale=wearer.locale,
                currency=wearer.currency,
                region=wearer.region,
                payer=payer,
            )
        return Device(device, key)
