"""What a sighting shows, or why nothing is said about it."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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


class Code(Shape):
    """A code read from the frame. `corners` in pixels, clockwise from the code's own top left."""

    text: str = Field(max_length=4096, description="empty where the code is no product's: it may be anybody's secret")
    format: str = Field(description="zxing-cpp's name of the symbology: EAN13, QRCode, …")
    corners: tuple[Point, Point, Point, Point]
    gtin: Gtin | None = Field(
        default=None, description="the product number the code stands for, if it is one and its check digit holds"
    )
    payee: PayeeCode | None = Field(default=None, description="whom the code asks to pay, if it does")


class UnclearReason(StrEnum):
    """Why nothing is said. Each has a hint in the wearer's language in the glossary."""

    NO_CODE = "no_code"
    SEVERAL_PRODUCTS = "several_products"
    NOT_A_PRODUCT_CODE = "not_a_product_code"
    UNREADABLE_FRAME = "unreadable_frame"
    RECOGNITION_UNAVAILABLE = "recognition_unavailable"
    PAYEE_SEEN_ONCE = "payee_seen_once"
    PAYEE_UNKNOWN = "payee_unknown"
    PAYERS_CODE = "payers_code"


class Recognition(Shape):
    """Data of `sighting.recognised`: one product, surely."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    gtin: Gtin
    confidence: Confidence
    codes: tuple[Code, ...] = Field(min_length=1, max_length=64)
    model: str = Field(description="model name and version that said so")


class Unclear(Shape):
    """Data of `sighting.unclear`: look again, nothing is guessed."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    reason: UnclearReason
    hint: str | None = Field(default=None, description="what the wearer can do, in the wearer's language")


class PayeesSeen(Shape):
    """Data of `payees.seen`: one frame shows the codes of one or more payees. None can be paid before a second frame agrees."""

    sighting_id: str
    frame_digest: Sha256
    intent: Intent
    payees: tuple[PayeeCode, ...] = Field(min_length=1, max_length=8)
