"""The people around the platform in the sandbox: a glasses maker, two merchants with their catalogues, wearers with glasses and
a means of payment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

from sqlalchemy import select

from connectors.shops.catalogue.importer import parse_catalogue
from infra.sandbox import providers
from infra.sandbox.glasses import DeviceKey
from infra.sandbox.sessions import Wearer
from schemas.ids import DeviceId, MakerId, MerchantId
from schemas.tables import merchants
from streams.catalogues import store as catalogues
from streams.catalogues.service import import_prices
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.gateway import provisioning
from streams.payments import accounts

SHOPS = {"Kvartersbutiken": "kvartersbutiken.csv", "Eckladen": "eckladen.csv"}
SHOPS_IN_CHINA = {"街角便利店": "jiejiao.csv", "小满超市": "xiaoman.csv"}
GERMAN = Wearer(locale="de-DE", currency="EUR", region="DE")


@dataclass(frozen=True)
class Merchant:
    id: MerchantId
    name: str
    token: str
    webhook_secret: str


@dataclass(frozen=True)
class Device:
    """`has_money`: its wearer's means of payment is not declined."""

    id: DeviceId
    key: DeviceKey
    has_money: bool = True


class World:
    """`provider` is the sandbox's payment provider at `address`, where each merchant has an account and each wearer a means of
    payment. The shops sell in a currency that it takes. `public_url` is the gateway's, for its notifications."""

    def __init__(self, database: Database, sealer: Sealer, provider: str, address: str, *, public_url: str | None = None) -> None:
        self._database = database
        self._sealer = sealer
        self._name = provider
        self._provider = providers.find(provider)
        self._address = address
        self._public_url = public_url
        self.maker: MakerId
        self.maker_token = ""
        self.merchants: list[Merchant] = []

    async def settle(self, webhook_url: str) -> Sequence[Merchant]:
        """Let the maker and the merchants in, each with a catalogue and a webhook address. Where the sandbox was settled
        before, the shops of that time no longer sell anything."""
        urls = []
        async with self._database.transaction() as connection:
            former = select(merchants.c.id).where(merchants.c.name.in_([*SHOPS, *SHOPS_IN_CHINA]))
            await catalogues.withdraw(connection, (await connection.execute(former)).scalars().all())
            self.maker, self.maker_token = await provisioning.add_maker(connection, "Sandbox Glasses")
            for name, file in (SHOPS_IN_CHINA if self._provider.CURRENCY == "CNY" else SHOPS).items():
                merchant, token = await provisioning.add_merchant(connection, name)
                _, secret = await provisioning.add_endpoint(connection, self._sealer, merchant, webhook_url, None)
                credentials = self._provider.credentials(self._address)
                account = await accounts.add(connection, self._sealer, merchant, self._name, credentials)
                if (url := accounts.notification_url(self._public_url, self._name, account)) is not None:
                    urls.append(url)
                rows = parse_catalogue(files("infra.sandbox").joinpath(f"catalogues/{file}").read_bytes())
                await import_prices(connection, merchant, rows, datetime.now(UTC))
                self.merchants.append(Merchant(merchant, name, token, secret))
        await self._provider.listen(self._address, urls)
        return self.merchants

    async def wearer(self, wearer: Wearer = GERMAN, kind: providers.Kind = "ok") -> Device:
        """New glasses, paired, with a means of payment."""
        key = DeviceKey()
        payer = await self._provider.seed_payer(self._address, kind=kind)
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
        return Device(device, key, has_money=kind != "declined")
