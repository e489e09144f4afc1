"""Products, offers, quotes and orders."""

from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.ids import MerchantId, OfferId, PayeeCodeId
from schemas.money import PositiveMoney
from schemas.recognition import Gtin, PriceTag, ProductId, Shape


class ProductQuery(Shape):
    """What a shop is asked for: a product number that every shop understands, or one merchant's own, or both."""

    gtin: Gtin | None = None
    merchant_id: MerchantId | None = None
    product_id: ProductId | None = None


class Product(Shape):
    """A product as its shop describes it. `language` is that of `title`, as a BCP 47 tag. `product_id` is the merchant's own name
    for it."""

    gtin: Gtin | None = None
    product_id: ProductId | None = None
    title: str = Field(min_length=1, max_length=300)
    language: str = Field(pattern="^[a-z]{2}(-[A-Z][A-Za-z]+)?$")
    brand: str | None = Field(default=None, max_length=100)


class Offer(Shape):
    """One shop's price for one product. `observed_at` is when the shop last said so."""

    shop: str = Field(description="the connector that answered")
    merchant_id: MerchantId
    merchant_name: str
    product: Product
    price: PositiveMoney
    observed_at: AwareDatetime
    url: str | None = Field(default=None, description="where the product can be seen or bought")


class Quote(Shape):
    """An offer the shop has confirmed and will honour until `expires_at`."""

    offer: Offer
    quantity: int = Field(ge=1, le=99)
    total: PositiveMoney
    expires_at: AwareDatetime


class Order(Shape):
    """What a shop has accepted: `reference` is the shop's own, `status` one of ours."""

    shop: str
    reference: str
    status: Literal["accepted", "fulfilled", "cancelled"]
    total: PositiveMoney


class Translation(Shape):
    """`language` is the target's where it was translated, else the source's; `by` is the translator that did it."""

    text: str
    language: str
    by: str


class ExchangeRate(Shape):
    """`rate` units of `target` for one of `source`, as the European Central Bank published it for `published_on`."""

    source: str
    target: str
    rate: Decimal = Field(strict=False)
    published_on: date = Field(strict=False)


class ShownOffer(Shape):
    """An offer as the wearer sees it. What is paid is always `offer.price`; the conversion is for orientation."""

    offer_id: OfferId
    offer: Offer
    title: str = Field(description="in the wearer's language, else as the shop wrote it")
    title_language: str
    price_text: str = Field(description="the price to be paid, written the wearer's way")
    converted: PositiveMoney | None = Field(default=None, description="in the wearer's currency, where it differs")
    converted_text: str | None = None
    rate: ExchangeRate | None = None
    stale: bool = Field(description="observed longer ago than the shop's prices are good for")
    expires_at: AwareDatetime


class OffersFound(Shape):
    """Data of `offers.found`. Cheapest first, where the currencies allow it; empty where no connected shop has the product.
    `late_shops` did not answer within the deadline and `failed_shops` could not: the wearer is told that they are missing."""

    sighting_id: str
    frame_digest: str
    gtin: Gtin | None = None
    product_id: ProductId | None = None
    price_tag: PriceTag | None = Field(default=None, description="what the tag beside the product says")
    offers: tuple[ShownOffer, ...]
    text: str = Field(description="the answer in one sentence, in the wearer's language, fit to be shown or spoken")
    late_shops: tuple[str, ...] = ()
    failed_shops: tuple[str, ...] = ()


class FoundPayee(Shape):
    """A registered payee whose code was seen in several frames. `name` is the registry's, not the code's. Without `amount` the
    wearer says how much, in `currency`."""

    payee_code_id: PayeeCodeId
    merchant_id: MerchantId
    name: str
    amount: PositiveMoney | None = None
    currency: str
    expires_at: AwareDatetime


class PayeesFound(Shape):
    """Data of `payees.found`. Several: the wearer has to choose."""

    sighting_id: str
    payees: tuple[FoundPayee, ...] = Field(min_length=1, max_length=8)
    text: str = Field(description="in the wearer's language")
