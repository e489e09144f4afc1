"""From what the models saw to what is said: one product surely, a few to choose from, whom codes ask to pay, or a reason to look
again. Plain functions on plain values.

A code proves more than a picture. A picture is acted upon from the confidence on that its catalogue's thresholds promise to be
right with; between that and unknown the wearer is asked. Where code and picture contradict each other, and both name products
that the catalogues know, the wearer is asked as well: one of two packets in view has its code, the other its face to the camera.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import dist
from typing import Literal, Protocol

from schemas.ids import MerchantId
from schemas.recognition import (
    Candidate,
    Choice,
    Code,
    Evidence,
    Intent,
    PayeeCode,
    PayeesSeen,
    Point,
    PriceTag,
    Recognition,
    Unclear,
    UnclearReason,
    Undecided,
)
from streams.sightings import thresholds
from streams.sightings.codes import Read
from streams.sightings.payee_codes import PayersCode
from streams.sightings.thresholds import Thresholds

Result = Recognition | PayeesSeen | Undecided | Unclear
Doubt = Literal["close", "unsure", "code_and_picture_differ"]
Corners = tuple[Point, Point, Point, Point]

CHOICES_AT_MOST = 3
"""So many a wearer is asked to choose from; see schemas.recognition.Undecided."""

_PAYEES_AT_MOST = 8  # of one frame; see schemas.recognition.PayeesSeen
_SMALLEST_SHARE = 1e-9

# Of a code that was seen and not read. So long, in pixels, is the longer side of one that could be: 95 bars and spaces, each of
# 1.5 pixels; and of a QR code, whose 25 squares a side are read when they have 3.
_LONG_ENOUGH, _SQUARE_ENOUGH = 150.0, 75.0
# Of its height a code's length: an EAN-13 has 1.4 of it when it is seen straight, a UPC-E, the narrowest, 0.74.
_STEEP = 0.7
_AT_THE_EDGE = 0.02  # of the frame's longer side; where a code comes so close, a part of it is likely not in view


class Quality(Protocol):
    """Of a frame, as the models `match` and `codes` measure it."""

    @property
    def sharpness(self) -> float: ...
    @property
    def brightness(self) -> float: ...
    @property
    def glare(self) -> float: ...
    @property
    def texture(self) -> float: ...


@dataclass(frozen=True)
class Frame:
    """Which frame this is about, and what the wearer wants of it."""

    sighting_id: str
    digest: str
    intent: Intent


@dataclass(frozen=True)
class Match:
    """A catalogue's product that the frame may show, with the matcher's score for it; `limits` say what that counts."""

    merchant_id: MerchantId
    product_id: str
    title: str
    language: str
    snapshot: int
    score: float
    limits: Thresholds = field(repr=False)
    gtin: str | None = None
    inliers: int | None = None
    outline: Corners | None = None
    picture: str | None = None

    @property
    def product(self) -> str:
        """Two merchants' entries of one GTIN are one product."""
        return self.gtin or f"{self.merchant_id} {self.product_id}"


@dataclass(frozen=True)
class Seen:
    """What is known of a frame when it is decided. `unread` are codes that were seen, the largest first. `size` is in pixels,
    (0, 0) where no model told it. `legible`: text was read. `known` are catalogues' products with a GTIN read from the frame.
    `models` answered; of the others it is said why not; who was not asked is in none of the three."""

    codes: tuple[Code, ...] = ()
    unread: tuple[Read, ...] = ()
    price_tag: PriceTag | None = None
    matches: tuple[Match, ...] = ()
    matcher: str | None = None
    quality: Quality | None = None
    size: tuple[int, int] = (0, 0)
    legible: bool = False
    known: tuple[Candidate, ...] = ()
    models: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def missing(self) -> frozenset[str]:
        return frozenset((*self.late, *self.failed))


@dataclass(frozen=True)
class Ranked:
    """A product as the wearer would be told of it, and whether its picture alone may be acted upon, asked about, or offered as
    one of the choices."""

    candidate: Candidate
    product: str
    acts: bool
    asks: bool
    is_choice: bool
    limits: Thresholds = field(repr=False)


def gtins(codes: Collection[Code]) -> frozenset[str]:
    return frozenset(code.gtin for code in codes if code.gtin)


def decide(frame: Frame, seen: Seen) -> Result:
    """The one answer to a frame."""
    ranked = rank(seen.matches, seen.matcher)
    products = gtins(seen.codes)
    if len(products) > 1:
        # A shelf full of codes: the one whose packet is seen, if one is.
        products &= {ranked[0].candidate.gtin or ""} if ranked and ranked[0].acts else frozenset()
    if len(products) == 1:
        return _by_code(frame, seen, next(iter(products)), ranked)
    if len(gtins(seen.codes)) > 1:
        return _unclear(frame, seen, UnclearReason.SEVERAL_PRODUCTS)
    payees = tuple(dict.fromkeys(code.payee for code in seen.codes if code.payee)) if frame.intent is Intent.PAY else ()
    if payees:
        return _payees(frame, seen, payees)
    if any(isinstance(code, PayersCode) for code in seen.codes):
        return _unclear(frame, seen, UnclearReason.PAYERS_CODE)
    sure = [one for one in ranked if one.acts]
    if len(sure) == 1:
        return _recognition(frame, seen, Evidence.PICTURE, sure[0].candidate, confidence=sure[0].candidate.confidence)
    # Two catalogues may each be sure of another one: a sibling looks like what one of them lacks.
    choices = sure or ranked[: choices_among(len(ranked), sum(one.is_choice for one in ranked))]
    if choices and choices[0].asks:
        doubt: Doubt = "close" if len(choices) > 1 else "unsure"
        return _undecided(frame, seen, doubt, [_choice(one.candidate) for one in choices])
    return _unclear(frame, seen, _read_all_the_same(frame, seen) or _reason(seen, ranked))


def rank(matches: Sequence[Match], matcher: str | None) -> tuple[Ranked, ...]:
    """Each product once, best score first. How far a product is ahead is counted within its own catalogue, as it is calibrated:
    what other merchants have makes it neither surer nor less sure. A product's own offset says how much its lead is worth, and
    makes no other the best."""
    best: list[Match] = []
    for match in sorted(matches, key=lambda one: -one.score):
        place = next((place for place, other in enumerate(best) if _is_same(match, other)), None)
        if place is None:
            best.append(match)
        elif best[place].picture is None:
            best[place] = replace(best[place], picture=match.picture)
    return tuple(_ranked(match, matches, matcher) for match in best)


def _is_same(one: Match, other: Match) -> bool:
    """By their GTIN, or two merchants use the same picture of it: the brand's, mostly. Within one catalogue a picture may stand
    for several."""
    if one.gtin and other.gtin:
        return one.gtin == other.gtin
    return one.merchant_id != other.merchant_id and one.picture is not None and one.picture == other.picture


def choices_among(ranked: int, probable: int) -> int:
    """How many of the products `ranked` are offered where the wearer is asked, if so many are probable enough: the best in any
    case."""
    return min(max(probable, 1), CHOICES_AT_MOST, ranked)


def _ranked(match: Match, matches: Sequence[Match], matcher: str | None) -> Ranked:
    limits = match.limits
    rivals = (other for other in matches if other.merchant_id == match.merchant_id and other.product != match.product)
    rival = max((other.score for other in rivals), default=None)
    confidence = limits.calibration.confidence(match.product_id, match.score, rival)
    candidate = Candidate(
        merchant_id=match.merchant_id,
        product_id=match.product_id,
        gtin=match.gtin,
        title=match.title,
        language=match.language,
        confidence=confidence,
        inliers=match.inliers,
        outline=match.outline,
        picture=match.picture,
        snapshot=match.snapshot,
    )
    return Ranked(
        candidate=candidate,
        product=match.product,
        acts=confidence >= limits.act and limits.may_act(matcher),
        asks=confidence >= limits.ask,
        is_choice=confidence >= limits.choice,
        limits=limits,
    )


def _by_code(frame: Frame, seen: Seen, gtin: str, ranked: Sequence[Ranked]) -> Result:
    """A valid GTIN wins over a picture, unless both are surely there and the catalogue knows both."""
    known = next((one for one in seen.known if one.gtin == gtin and one.picture), None)
    best = ranked[0] if ranked else None
    same = next((one for one in ranked if one.product == gtin), None)
    if best is not None and best.acts and best is not same and known is not None:
        return _undecided(frame, seen, "code_and_picture_differ", [_choice(known), _choice(best.candidate)])
    if best is not None and best is same and best.acts:
        return _recognition(frame, seen, Evidence.CODE_AND_PICTURE, best.candidate, gtin=gtin, confidence=1.0)
    return _recognition(frame, seen, Evidence.CODE, None, gtin=gtin, confidence=1.0)  # the check digit holds, nothing contradicts


def _payees(frame: Frame, seen: Seen, payees: tuple[PayeeCode, ...]) -> PayeesSeen | Unclear:
    """They count only for who wants to pay, and only where no product is in view. A product beside them is what the wearer holds
    up: its own packet may carry a payee's code (a donation, a raffle), and a shop's price for it is better than a payee without a
    bill. Whoever means the payee looks at its code alone."""
    if len(payees) > _PAYEES_AT_MOST:
        return _unclear(frame, seen, UnclearReason.SEVERAL_PRODUCTS)
    return PayeesSeen(sighting_id=frame.sighting_id, frame_digest=frame.digest, intent=frame.intent, payees=payees)


def _recognition(
    frame: Frame, seen: Seen, evidence: Evidence, candidate: Candidate | None, *, confidence: float, gtin: str | None = None
) -> Recognition:
    return Recognition(
        sighting_id=frame.sighting_id,
        frame_digest=frame.digest,
        intent=frame.intent,
        gtin=gtin or (candidate.gtin if candidate else None),
        candidate=candidate,
        evidence=evidence,
        confidence=confidence,
        codes=_told(seen.codes),
        price_tag=seen.price_tag,
        models=seen.models,
        late_models=seen.late,
        failed_models=seen.failed,
    )


def _undecided(frame: Frame, seen: Seen, reason: Doubt, choices: Sequence[Choice]) -> Undecided:
    return Undecided(
        sighting_id=frame.sighting_id,
        frame_digest=frame.digest,
        intent=frame.intent,
        reason=reason,
        choices=tuple(choices[:CHOICES_AT_MOST]),
        price_tag=seen.price_tag,
        models=seen.models,
        late_models=seen.late,
        failed_models=seen.failed,
    )


def _choice(candidate: Candidate) -> Choice:
    return Choice(gtin=candidate.gtin, candidate=candidate)


def _read_all_the_same(frame: Frame, seen: Seen) -> UnclearReason | None:
    """What was wanted, without a product. Not where a code was seen and not read: to read it tells more."""
    if seen.unread or seen.missing or any(isinstance(code, PayersCode) for code in seen.codes):
        return None
    has_price = seen.price_tag is not None or any(code.in_store and code.in_store.price for code in seen.codes)
    if has_price and frame.intent in {Intent.PRICE, Intent.READ}:
        return UnclearReason.PRICE_ONLY
    has_address = frame.intent is Intent.READ and any(code.link for code in seen.codes)
    return UnclearReason.ADDRESS_ONLY if has_address else None


def _reason(seen: Seen, ranked: Sequence[Ranked]) -> UnclearReason:
    """The hint that helps most: what is wrong with the view first, for nothing else can be known before it is right."""
    if not seen.models or ("codes" in seen.missing and not ranked):
        return UnclearReason.RECOGNITION_UNAVAILABLE
    best = ranked[0] if ranked else None
    views, quality = (best.limits if best else thresholds.shipped()).views, seen.quality
    if quality is not None and not seen.codes:
        if quality.brightness < views.dark:
            return UnclearReason.TOO_DARK
        # White paper with print on it is as bright.
        if quality.glare > views.glare and not seen.legible:
            return UnclearReason.GLARE
    if seen.unread:
        return _why_unread(seen.unread[0], seen.size)
    if seen.codes:
        return UnclearReason.NOT_A_PRODUCT_CODE
    if seen.matcher is None:
        if "match" in seen.missing:
            return UnclearReason.RECOGNITION_UNAVAILABLE  # the product may well be in view
        # An even wall is never sharp.
        is_blurred = quality is not None and quality.sharpness < views.blurred and quality.texture >= views.plain
        return UnclearReason.BLURRED if is_blurred else UnclearReason.NO_CODE
    if quality is not None and quality.sharpness < views.blurred:
        return UnclearReason.BLURRED
    if best is not None and best.is_choice:
        if _share(best.candidate.outline, seen.size) < views.far:
            return UnclearReason.TOO_FAR
        if (best.candidate.inliers or 0) < views.few_inliers:
            return UnclearReason.TURN_LABEL
    if quality is not None and quality.texture < views.plain:
        return UnclearReason.TURN_LABEL
    # To look at the barcode helps only where somebody reads it.
    return UnclearReason.RECOGNITION_UNAVAILABLE if "codes" in seen.missing else UnclearReason.UNKNOWN_PRODUCT


def _why_unread(read: Read, size: tuple[int, int]) -> UnclearReason:
    """What would make it readable: all of it in view, larger, straight ahead, or not moved."""
    top_left, top_right, bottom_right, bottom_left = read.corners
    along = (dist(top_left, top_right) + dist(bottom_left, bottom_right)) / 2
    beside = (dist(top_left, bottom_left) + dist(top_right, bottom_right)) / 2
    edge = _AT_THE_EDGE * max(size)
    if any(not (edge <= x <= size[0] - edge and edge <= y <= size[1] - edge) for x, y in read.corners):
        return UnclearReason.CODE_CUT_OFF
    if max(along, beside) < (_SQUARE_ENOUGH if read.format == "QRCode" else _LONG_ENOUGH):
        return UnclearReason.TOO_FAR
    return UnclearReason.TURN_LABEL if along < _STEEP * beside else UnclearReason.BLURRED


def _share(outline: Corners | None, size: tuple[int, int]) -> float:
    """Of the frame that lies within the outline; all of it, where it is not known."""
    if outline is None or min(size) <= 0:
        return 1.0
    after = (*outline[1:], outline[0])
    doubled = sum(here[0] * there[1] - there[0] * here[1] for here, there in zip(outline, after, strict=True))
    return max(abs(doubled) / 2 / (size[0] * size[1]), _SMALLEST_SHARE)


def _told(codes: Sequence[Code]) -> tuple[Code, ...]:
    """Beside a product whom a code asks to pay is nobody's business."""
    return tuple(code.model_copy(update={"payee": None}) for code in codes if not isinstance(code, PayersCode))


def _unclear(frame: Frame, seen: Seen, reason: UnclearReason) -> Unclear:
    told = [code for code in _told(seen.codes) if code.gtin or code.in_store or code.link]
    return Unclear(
        sighting_id=frame.sighting_id,
        frame_digest=frame.digest,
        intent=frame.intent,
        reason=reason,
        codes=tuple(told),
        price_tag=seen.price_tag,
        late_models=seen.late,
        failed_models=seen.failed,
    )


def unclear(frame: Frame, reason: UnclearReason) -> Unclear:
    return _unclear(frame, Seen(), reason)
