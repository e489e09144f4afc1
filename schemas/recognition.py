"""What a sighting shows, or why nothing is said about it."""

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.ids import MerchantId
from schemas.money import PositiveMoney


class Shape(BaseModel):
    """Base of all data on the wire: strict, frozen, and nothing unexpected."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Intent(StrEnum):
    """What the wearer wants of a sighting."""

    IDENTIFY = "identify"
    PRICE = "price"
    PAY = "pay"
    READ = "read"


Gtin = Annotated[str, Field(pattern="^[0-9]{14}$", description="GTIN, normalised to 14 digits, check digit verified")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Confidence = Annotated[float, Field(ge=0, le=1)]
Point = tuple[float, float]
ProductId = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", description="the merchant's own name for a product")
]


class PayeeScheme(StrEnum):
    """Whose codes payees show."""

    EMVCO = "emvco"
    ALIPAY = "alipay"
    WECHAT_PAY = "wechat_pay"


class PayeeCode(Shape):
    """What a payee's code says. `key` identifies the payee, and nothing else: the SHA-256 of the scheme and of that part of the
    code that does. `name` is the code's own word for the payee, which anybody can print. A dynamic code is for one payment."""

    scheme: PayeeScheme
    key: Sha256
    name: str | None = Field(default=None, max_length=100)
    amount: PositiveMoney | None = None
    currency: str | None = Field(default=None, description="where the code names one without an amount")
    dynamic: bool = False
    reference: str | None = Field(default=None, max_length=100, description="the payee's own number of the bill")


class Measure(Shape):
    """An amount of goods: 0.5 `l`, 250 `g`, 6 `piece`."""

    value: Decimal = Field(gt=0, strict=False)
    unit: Literal["g", "kg", "ml", "l", "piece", "m", "m2", "wash", "dose"]


class Elements(Shape):
    """What GS1 element strings, or the attributes of a GS1 Digital Link, say beside the product's number. Best before, not use
    by, where both are there: `expires_on` is the earlier."""

    expires_on: date | None = Field(default=None, strict=False)
    batch: str | None = Field(default=None, max_length=20)
    weight: Measure | None = None
    price: PositiveMoney | None = None


class InStore(Shape):
    """A number that one shop made for one piece (GS1 prefixes 02 and 20 to 29): the shop's own item, and its price or its
    weight."""

    item: str = Field(pattern="^[0-9]{4,6}$")
    price: PositiveMoney | None = None
    weight: Measure | None = None


class Code(Shape):
    """A code read from the frame. `corners` in pixels, clockwise from the code's own top left."""

    text: str = Field(max_length=4096, description="empty where the code is no product's: it may be anybody's secret")
    format: str = Field(description="zxing-cpp's name of the symbology: EAN13, QRCode, …")
    corners: tuple[Point, Point, Point, Point]
    symbology: str | None = Field(default=None, max_length=3, description="AIM symbology identifier: ]E0, ]C1, ]Q1, …")
    gtin: Gtin | None = Field(
        default=None, description="the product number the code stands for, if it is one and its check digit holds"
    )
    publication: str | None = Field(default=None, pattern="^(ISBN [0-9]{13}|ISSN [0-9]{7}[0-9X])$")
    add_on: str | None = Field(
        default=None, pattern="^([0-9]{2}|[0-9]{5})$", description="the digits printed beside a periodical's or a book's number"
    )
    issue: int | None = Field(default=None, ge=0, le=99, description="a periodical's, as its add-on counts them")
    printed_price: PositiveMoney | None = Field(default=None, description="a book's, as its add-on tells it")
    elements: Elements | None = None
    in_store: InStore | None = None
    link: str | None = Field(default=None, max_length=2048, description="an address to be shown, never opened; for `read` only")
    payee: PayeeCode | None = Field(default=None, description="whom the code asks to pay, if it does")


class UnitPrice(Shape):
    """`price` for `per` of the goods: 9.90 € for 1 kg."""

    price: PositiveMoney
    per: Measure


class Condition(Shape):
    """What the price depends on: so many pieces for so much, some percent off, a customer's card, a coupon."""

    kind: Literal["multi_buy", "percent_off", "card", "coupon", "members"]
    pieces: int | None = Field(default=None, ge=2, le=99)
    total: PositiveMoney | None = Field(default=None, description="for all `pieces`")
    percent: int | None = Field(default=None, ge=1, le=99)


class PriceTag(Shape):
    """A price tag read from the frame. `price` is what one piece costs when nothing more is done; what a condition promises is in
    `conditions`, never in `price`. `corners` as a code's."""

    price: PositiveMoney
    was: PositiveMoney | None = Field(default=None, description="the higher price it replaces")
    unit_price: UnitPrice | None = None
    quantity: Measure | None = None
    conditions: tuple[Condition, ...] = Field(default=(), max_length=4)
    confidence: Confidence
    corners: tuple[Point, Point, Point, Point]


class Candidate(Shape):
    """A product of a merchant's catalogue that the frame may show. `outline` is where, in the frame; `inliers` are the points
    that agree with the catalogue's picture, `picture` is the SHA-256 of that picture (GET /v1/pictures/{picture})."""

    merchant_id: MerchantId
    product_id: ProductId
    gtin: Gtin | None = None
    title: str = Field(max_length=300)
    language: str
    confidence: Confidence
    inliers: int | None = Field(default=None, ge=0)
    outline: tuple[Point, Point, Point, Point] | None = None
    picture: Sha256 | None = None
    snapshot: int | None = Field(default=None, ge=1, description="the number of the catalogue's snapshot")


class UnclearReason(StrEnum):
    """Why nothing is said. Each has a hint in the wearer's language in the glossary."""

    NO_CODE = "no_code"
    CODE_CUT_OFF = "code_cut_off"
    SEVERAL_PRODUCTS = "several_products"
    NOT_A_PRODUCT_CODE = "not_a_product_code"
    UNKNOWN_PRODUCT = "unknown_product"
    TOO_FAR = "too_far"
    BLURRED = "blurred"
    TOO_DARK = "too_dark"
    GLARE = "glare"
    TURN_LABEL = "turn_label"
    UNREADABLE_FRAME = "unreadable_frame"
    RECOGNITION_UNAVAILABLE = "recognition_unavailable"
    PAYEE_SEEN_ONCE = "payee_seen_once"
    PAYEE_UNKNOWN = "payee_unknown"
    PAYERS_CODE = "payers_code"
    PRICE_ONLY = "price_only"
    ADDRESS_ONLY = "address_only"


class Evidence(StrEnum):
    """What a product was recognised by."""

    CODE = "code"
    PICTURE = "picture"
    CODE_AND_PICTURE = "code_and_picture"
    WEARER = "wearer"


class Recognition(Shape):
    """Data of `sighting.recognised`: one product, surely. It has a `gtin`, or it is a product of one merchant's catalogue
    (`candidate`), or both. `late_models` and `failed_models` did not contribute."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    gtin: Gtin | None = None
    candidate: Candidate | None = None
    evidence: Evidence
    confidence: Confidence
    codes: tuple[Code, ...] = Field(default=(), max_length=64)
    price_tag: PriceTag | None = None
    models: tuple[str, ...] = Field(min_length=1, max_length=8, description="names and versions of the models that answered")
    late_models: tuple[str, ...] = ()
    failed_models: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_a_product(self) -> Self:
        if self.gtin is None and self.candidate is None:
            raise ValueError("a recognition names a product")
        return self


class Choice(Shape):
    """One of the products the wearer is asked to choose from."""

    gtin: Gtin | None = None
    candidate: Candidate | None = None
    title: str | None = Field(default=None, max_length=300, description="in the wearer's language where it was translated")
    picture: str | None = Field(default=None, max_length=200, description="where the gateway shows it: /v1/pictures/…")

    @model_validator(mode="after")
    def _is_a_product(self) -> Self:
        if self.gtin is None and self.candidate is None:
            raise ValueError("a choice names a product")
        return self


class Undecided(Shape):
    """Data of `sighting.undecided`, and of `choice.offered`: it is probably one of these, or this one (`unsure`), and only the
    wearer can say. The answer is a `choice.made`. `late_models` and `failed_models` did not contribute."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    reason: Literal["close", "unsure", "code_and_picture_differ"]
    choices: tuple[Choice, ...] = Field(min_length=1, max_length=3)
    price_tag: PriceTag | None = None
    models: tuple[str, ...] = Field(min_length=1, max_length=8)
    late_models: tuple[str, ...] = ()
    failed_models: tuple[str, ...] = ()
    text: str | None = Field(default=None, description="the question, in the wearer's language")


class ChoiceMade(Shape):
    """Data of `choice.made`: the wearer chose one of `choice.offered`, counted from 0."""

    offered: Undecided
    choice: int = Field(ge=0, le=2)

    @model_validator(mode="after")
    def _was_offered(self) -> Self:
        if self.choice >= len(self.offered.choices):
            raise ValueError("the choice was not offered")
        return self

    @property
    def chosen(self) -> Choice:
        return self.offered.choices[self.choice]


class Unclear(Shape):
    """Data of `sighting.unclear`: look again, nothing is guessed. Where the frame shows a price tag or plain codes and no
    product, they are told all the same. `late_models` and `failed_models` did not contribute."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    reason: UnclearReason
    hint: str | None = Field(default=None, description="what the wearer can do, in the wearer's language")
    codes: tuple[Code, ...] = Field(default=(), max_length=64)
    price_tag: PriceTag | None = None
    late_models: tuple[str, ...] = ()
    failed_models: tuple[str, ...] = ()


class PayeesSeen(Shape):
    """Data of `payees.seen`: one frame shows the codes of one or more payees. None can be paid before a second frame agrees."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    payees: tuple[PayeeCode, ...] = Field(min_length=1, max_length=8)
