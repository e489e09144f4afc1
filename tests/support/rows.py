"""Who takes part: makers, devices, merchants and what merchants sell, put into the database as the platform does it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from infra.sandbox.glasses import DeviceKey
from schemas.ids import DeviceId, EndpointId, JourneyId, MakerId, MerchantId, OfferId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import CartLine, Payer, PresenceMethod, ProposalTerms
from schemas.tables import catalogue_products, metadata, offers, payments, proposals
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


@dataclass(frozen=True)
class ApprovedPayment:
    id: PaymentId
    proposal_id: ProposalId
    merchant_id: MerchantId
    total: Money


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

    async def approved_payment(
        self, total: Money | None = None, *, glasses: PairedGlasses | None = None, provider: str = "stripe"
    ) -> ApprovedPayment:
        """As the wearer's yes leaves it, with the offer and the proposal it stands on."""
        shop, glasses = await self.merchant(), glasses or await self.glasses()
        payment = ApprovedPayment(PaymentId.new(), ProposalId.new(), shop.merchant_id, total or Money.of(1299, "EUR"))
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
