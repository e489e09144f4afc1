"""From what the models saw to what is said: act, ask, or look again with the hint that helps most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import MerchantId
from schemas.money import Money
from schemas.recognition import (
    Candidate,
    Code,
    Evidence,
    InStore,
    Intent,
    PriceTag,
    Recognition,
    Unclear,
    UnclearReason,
    Undecided,
)
from streams.sightings import service
from streams.sightings.codes import Read, meaning
from streams.sightings.service import Frame, Match, Result, Seen
from streams.sightings.thresholds import Calibration, Thresholds, Views, shipped
from streams.sightings.triton import Quality

CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
WHOLE = ((0.0, 0.0), (640.0, 0.0), (640.0, 480.0), (0.0, 480.0))
SMALL = ((300.0, 200.0), (340.0, 200.0), (340.0, 240.0), (300.0, 240.0))
SHOP, OTHER_SHOP = MerchantId.new(), MerchantId.new()
GOOD = Quality(sharpness=200.0, brightness=120.0, glare=0.0, texture=50.0)
PICTURE = "f" * 64
TAG = PriceTag(price=Money.of(199, "EUR"), confidence=0.9, corners=CORNERS)

LIMITS = Thresholds(
    matcher="sift-1",
    # Score and margin count one to one: 10 with no rival is sure, 10 with a rival of 9 is a coin's toss or so.
    calibration=Calibration(intercept=-8.0, score=0.5, margin=0.7),
    act=0.9,
    ask=0.2,
    choice=0.01,
    views=Views(dark=40.0, blurred=25.0, glare=0.1, plain=5.0, far=0.05, few_inliers=12),
    price_tag=shipped().price_tag,
)


def code(text: str, format: str = "EAN13") -> Code:
    return meaning(Read(text=text, format=format, corners=CORNERS, valid=True), Intent.READ, "DE")


MILK, JUICE = code("9520000010010"), code("9520000010027")


def match(product: str, score: float, *, gtin: str | None = None, merchant: MerchantId = SHOP, **changes: object) -> Match:
    given = {
        "merchant_id": merchant,
        "product_id": product,
        "title": product.title(),
        "language": "en",
        "snapshot": 3,
        "score": score,
        "limits": LIMITS,
        "gtin": gtin,
        "inliers": 40,
        "outline": WHOLE,
        "picture": PICTURE,
    }
    return Match(**{**given, **changes})  # type: ignore[arg-type]


def decide(intent: Intent = Intent.IDENTIFY, *, quality: Quality | None = GOOD, **seen: object) -> Result:
    frame = Frame("s", "0" * 64, intent)
    given = {"models": ("codes:1", "match:1"), "matcher": "sift-1", "size": (640, 480), "quality": quality}
    return service.decide(frame, Seen(**{**given, **seen}))  # type: ignore[arg-type]


def known(product: str, gtin: str | None, picture: str | None = PICTURE) -> Candidate:
    return Candidate(
        merchant_id=SHOP, product_id=product, gtin=gtin, title=product.title(), language="en", confidence=1.0, picture=picture
    )


# Codes.


def test_one_products_code_is_said_surely() -> None:
    result = decide(codes=(MILK, code("https://example.com", "QRCode")))
    assert isinstance(result, Recognition)
    assert (result.gtin, result.confidence, result.evidence, result.candidate) == (MILK.gtin, 1.0, Evidence.CODE, None)


def test_the_same_product_twice_is_one_product() -> None:
    assert isinstance(decide(codes=(MILK, MILK)), Recognition)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ((MILK, JUICE), UnclearReason.SEVERAL_PRODUCTS),
        ((code("https://example.com", "QRCode"),), UnclearReason.NOT_A_PRODUCT_CODE),
        ((code("2012345678900"),), UnclearReason.NOT_A_PRODUCT_CODE),
    ],
)
def test_otherwise_nothing_is_guessed(codes: tuple[Code, ...], reason: UnclearReason) -> None:
    result = decide(codes=codes)
    assert isinstance(result, Unclear) and result.reason is reason


def test_without_any_model_that_looks_at_pictures_a_frame_without_code_has_none() -> None:
    result = decide(quality=None, models=("codes:1",), matcher=None)
    assert isinstance(result, Unclear) and result.reason is UnclearReason.NO_CODE


def test_what_is_no_product_is_told_all_the_same() -> None:
    result = decide(Intent.READ, codes=(code("2212346146856"), code("https://example.com", "QRCode")), price_tag=TAG)
    assert isinstance(result, Unclear)
    assert result.price_tag == TAG
    assert [(one.in_store, one.link) for one in result.codes] == [
        (InStore(item="1234", price=Money.of(14685, "EUR")), None),
        (None, "https://example.com"),
    ]


@pytest.mark.parametrize(
    ("intent", "changes", "reason"),
    [
        (Intent.READ, {"codes": (code("https://example.com", "QRCode"),)}, UnclearReason.ADDRESS_ONLY),
        (Intent.READ, {"codes": (code("https://example.com", "QRCode"),), "price_tag": TAG}, UnclearReason.PRICE_ONLY),
        (Intent.READ, {"codes": (code("just words", "QRCode"),)}, UnclearReason.NOT_A_PRODUCT_CODE),
        (Intent.PRICE, {"price_tag": TAG}, UnclearReason.PRICE_ONLY),
        (Intent.PRICE, {"codes": (code("2212346146856"),)}, UnclearReason.PRICE_ONLY),
        (Intent.PRICE, {"codes": (code("2012345678900"),)}, UnclearReason.NOT_A_PRODUCT_CODE),
        (Intent.IDENTIFY, {"codes": (code("2212346146856"),)}, UnclearReason.NOT_A_PRODUCT_CODE),
        (Intent.PRICE, {"price_tag": TAG, "late": ("match",), "matcher": None}, UnclearReason.RECOGNITION_UNAVAILABLE),
    ],
)
def test_what_was_wanted_and_is_no_product_needs_no_second_look(
    intent: Intent, changes: dict[str, object], reason: UnclearReason
) -> None:
    result = decide(intent, **changes)  # type: ignore[arg-type]
    assert isinstance(result, Unclear) and result.reason is reason


def test_a_code_in_view_that_could_not_be_read_is_worth_a_second_look() -> None:
    result = decide(Intent.PRICE, price_tag=TAG, unread=unread(200, 150, 260, 120))
    assert isinstance(result, Unclear) and result.reason is UnclearReason.BLURRED


# Pictures.


def test_a_sure_picture_is_acted_upon() -> None:
    result = decide(matches=(match("milk", 30.0), match("juice", 2.0)), price_tag=TAG)
    assert isinstance(result, Recognition)
    assert result.evidence is Evidence.PICTURE and result.gtin is None and result.price_tag == TAG
    assert result.candidate is not None and result.candidate.product_id == "milk"
    assert 0.9 <= result.confidence == result.candidate.confidence < 1


def test_two_that_are_close_are_asked_about_best_first_and_at_most_three() -> None:
    scores = {"milk": 16.0, "oat milk": 16.2, "soy milk": 15.9, "rice milk": 15.8, "stone": 0.1}
    result = decide(matches=tuple(match(product, score) for product, score in scores.items()))
    assert isinstance(result, Undecided) and result.reason == "close"
    assert [choice.candidate.product_id for choice in result.choices if choice.candidate] == ["oat milk", "milk", "soy milk"]
    assert all(choice.candidate.picture == PICTURE for choice in result.choices if choice.candidate)


def test_one_probable_product_is_asked_about_alone() -> None:
    for others in ((match("stone", 4.0), match("brick", 0.1)), ()):
        result = decide(matches=(match("milk", 10.0 if others else 7.0), *others))
        assert isinstance(result, Undecided) and result.reason == "unsure"
        assert [choice.candidate.product_id for choice in result.choices if choice.candidate] == ["milk"]


def test_a_weak_match_is_an_unknown_product() -> None:
    result = decide(matches=(match("milk", 1.0), match("juice", 0.9)))
    assert isinstance(result, Unclear) and result.reason is UnclearReason.UNKNOWN_PRODUCT


def test_a_product_that_two_merchants_sell_is_no_rival_of_its_own() -> None:
    both = (match("milk", 30.0, gtin=MILK.gtin), match("4711", 29.5, gtin=MILK.gtin, merchant=OTHER_SHOP))
    result = decide(matches=both)
    assert isinstance(result, Recognition) and result.gtin == MILK.gtin


def test_what_another_merchant_sells_makes_a_product_neither_surer_nor_less_sure() -> None:
    own = (match("milk", 30.0, picture="a" * 64), match("juice", 14.0, picture="b" * 64))
    alone = decide(matches=own)
    assert isinstance(alone, Recognition)
    for others in (
        [match("4711", 29.9, merchant=OTHER_SHOP, picture="a" * 64)],  # the brand's picture
        [match("4711", 12.0, merchant=OTHER_SHOP, picture="c" * 64), match("4712", 11.9, merchant=OTHER_SHOP, picture="d" * 64)],
    ):
        beside = decide(matches=(*own, *others))
        assert isinstance(beside, Recognition) and beside.confidence == alone.confidence
        assert beside.candidate is not None and beside.candidate.product_id == "milk"


def test_two_catalogues_that_are_sure_of_different_products_are_asked_about() -> None:
    result = decide(
        matches=(match("milk", 30.0, picture="a" * 64), match("oat milk", 28.0, merchant=OTHER_SHOP, picture="c" * 64))
    )
    assert isinstance(result, Undecided) and result.reason == "close"
    assert [choice.candidate.product_id for choice in result.choices if choice.candidate] == ["milk", "oat milk"]


def test_one_picture_for_several_products_of_a_catalogue_makes_them_no_one_product() -> None:
    result = decide(matches=(match("milk", 16.0), match("oat milk", 15.9)))
    assert isinstance(result, Undecided) and len(result.choices) == 2


def test_the_scores_of_another_matcher_are_asked_about_at_best() -> None:
    sure = (match("milk", 30.0), match("juice", 28.0))
    assert isinstance(decide(matches=sure[:1]), Recognition)
    assert isinstance(decide(matches=sure[:1], matcher="sift-2"), Undecided)
    assert isinstance(decide(matches=(match("milk", 18.0), match("juice", 16.0)), matcher="sift-2"), Undecided)


def test_a_products_own_offset_counts_for_it_alone() -> None:
    careful = LIMITS.model_copy(update={"calibration": LIMITS.calibration.model_copy(update={"offsets": {"milk": -50.0}})})
    assert isinstance(decide(matches=(match("milk", 30.0, limits=careful),)), Unclear)
    assert isinstance(decide(matches=(match("juice", 30.0, limits=careful),)), Recognition)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6) | st.none(), st.floats(0, 100))
def test_confidence_grows_with_the_score_and_stays_below_certainty(score: float, rival: float | None, more: float) -> None:
    calibration = LIMITS.calibration
    one, other = (calibration.confidence("milk", each, rival) for each in (score, score + more))
    assert 0 <= one <= other < 1


# Codes and pictures.


def test_code_and_picture_agree() -> None:
    result = decide(codes=(MILK,), matches=(match("milk", 30.0, gtin=MILK.gtin),), known=(known("milk", MILK.gtin),))
    assert isinstance(result, Recognition)
    assert result.evidence is Evidence.CODE_AND_PICTURE and result.candidate is not None


def test_a_code_wins_over_a_picture_that_is_not_sure() -> None:
    weak = (match("juice", 12.0, gtin=JUICE.gtin), match("milk", 11.9, gtin=MILK.gtin))
    result = decide(codes=(MILK,), matches=weak, known=(known("milk", MILK.gtin),))
    assert isinstance(result, Recognition)
    assert (result.gtin, result.evidence) == (MILK.gtin, Evidence.CODE)


def test_a_sure_contradiction_between_known_products_is_asked_about() -> None:
    result = decide(codes=(MILK,), matches=(match("juice", 30.0, gtin=JUICE.gtin),), known=(known("milk", MILK.gtin),))
    assert isinstance(result, Undecided) and result.reason == "code_and_picture_differ"
    assert [choice.gtin for choice in result.choices] == [MILK.gtin, JUICE.gtin]


@pytest.mark.parametrize("entry", [(), (known("milk", MILK.gtin, picture=None),)])
def test_a_code_that_no_catalogue_could_recognise_by_picture_wins_always(entry: tuple[Candidate, ...]) -> None:
    result = decide(codes=(MILK,), matches=(match("juice", 30.0, gtin=JUICE.gtin),), known=entry)
    assert isinstance(result, Recognition) and result.gtin == MILK.gtin


def test_of_several_codes_that_of_the_packet_in_view() -> None:
    result = decide(codes=(MILK, JUICE), matches=(match("juice", 30.0, gtin=JUICE.gtin),))
    assert isinstance(result, Recognition)
    assert (result.gtin, result.evidence) == (JUICE.gtin, Evidence.CODE_AND_PICTURE)
    elsewhere = decide(codes=(MILK, JUICE), matches=(match("bread", 30.0, gtin="09520000010034"),))
    assert isinstance(elsewhere, Unclear) and elsewhere.reason is UnclearReason.SEVERAL_PRODUCTS


# Looking again.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quality": GOOD.model_copy(update={"brightness": 20.0, "sharpness": 1.0})}, UnclearReason.TOO_DARK),
        ({"quality": GOOD.model_copy(update={"glare": 0.4, "sharpness": 1.0})}, UnclearReason.GLARE),
        ({"quality": GOOD.model_copy(update={"glare": 0.4}), "legible": True}, UnclearReason.UNKNOWN_PRODUCT),  # white paper
        ({"quality": GOOD.model_copy(update={"sharpness": 1.0})}, UnclearReason.BLURRED),
        ({"quality": GOOD.model_copy(update={"texture": 1.0})}, UnclearReason.TURN_LABEL),
        ({"matches": (match("milk", 5.5, outline=SMALL),)}, UnclearReason.TOO_FAR),
        ({"matches": (match("milk", 5.5, inliers=5),)}, UnclearReason.TURN_LABEL),
        ({"matches": (match("milk", 5.5),)}, UnclearReason.UNKNOWN_PRODUCT),
        ({}, UnclearReason.UNKNOWN_PRODUCT),
        ({"models": (), "failed": ("codes", "match"), "quality": None}, UnclearReason.RECOGNITION_UNAVAILABLE),
        ({"models": ("match:1",), "failed": ("codes",)}, UnclearReason.RECOGNITION_UNAVAILABLE),
        ({"models": ("codes:1",), "late": ("match",), "matcher": None, "quality": None}, UnclearReason.RECOGNITION_UNAVAILABLE),
        ({"models": ("codes:1",), "late": ("match",), "matcher": None}, UnclearReason.RECOGNITION_UNAVAILABLE),
        ({"models": ("match:1",), "failed": ("codes",), "matches": (match("milk", 5.5),)}, UnclearReason.RECOGNITION_UNAVAILABLE),
    ],
)
def test_the_hint_that_helps_most(changes: dict[str, object], reason: UnclearReason) -> None:
    result = decide(**changes)  # type: ignore[arg-type]
    assert isinstance(result, Unclear)
    assert result.reason is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"brightness": 20.0, "sharpness": 1.0}, UnclearReason.TOO_DARK),
        ({"glare": 0.4}, UnclearReason.GLARE),
        ({"sharpness": 1.0}, UnclearReason.BLURRED),
        ({"sharpness": 1.0, "texture": 1.0}, UnclearReason.NO_CODE),  # an even wall, which is never sharp
        ({"texture": 1.0}, UnclearReason.NO_CODE),
        ({}, UnclearReason.NO_CODE),
    ],
)
def test_what_is_wrong_with_the_view_is_said_without_a_catalogue_as_well(
    changes: dict[str, float], reason: UnclearReason
) -> None:
    result = decide(Intent.PAY, quality=GOOD.model_copy(update=changes), models=("codes:1",), matcher=None)
    assert isinstance(result, Unclear) and result.reason is reason


def unread(left: float, top: float, width: float, height: float, format: str = "Linear") -> tuple[Read, ...]:
    right, bottom = left + width, top + height
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return (Read(text="", format=format, corners=corners, valid=False),)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (unread(250, 200, 90, 30), UnclearReason.TOO_FAR),
        (unread(250, 200, 60, 60, "QRCode"), UnclearReason.TOO_FAR),
        (unread(200, 150, 260, 120), UnclearReason.BLURRED),
        (unread(250, 150, 120, 120, "QRCode"), UnclearReason.BLURRED),
        (unread(300, 100, 60, 200), UnclearReason.TURN_LABEL),
        (unread(2, 150, 260, 120), UnclearReason.CODE_CUT_OFF),
        (unread(500, 150, 145, 120), UnclearReason.CODE_CUT_OFF),
        (unread(200, 400, 90, 76), UnclearReason.CODE_CUT_OFF),
    ],
)
@pytest.mark.parametrize("matcher", [None, "sift-1"])
def test_what_would_make_a_code_readable_that_is_in_view(
    seen: tuple[Read, ...], reason: UnclearReason, matcher: str | None
) -> None:
    result = decide(unread=seen, matcher=matcher)
    assert isinstance(result, Unclear) and result.reason is reason
    dark = decide(unread=seen, matcher=matcher, quality=GOOD.model_copy(update={"brightness": 20.0}))
    assert isinstance(dark, Unclear) and dark.reason is UnclearReason.TOO_DARK


def test_an_address_beside_a_code_that_cannot_be_read_is_not_what_the_wearer_means() -> None:
    result = decide(codes=(code("https://example.com", "QRCode"),), unread=unread(250, 200, 90, 30), quality=None)
    assert isinstance(result, Unclear) and result.reason is UnclearReason.TOO_FAR


@pytest.mark.parametrize("seen", [{}, {"matches": (match("milk", 16.0), match("juice", 15.9))}])
def test_who_did_not_answer_is_said_in_doubt_too(seen: dict[str, object]) -> None:
    result = decide(late=("ocr",), failed=("codes",), **seen)
    assert isinstance(result, Unclear | Undecided)
    assert (result.late_models, result.failed_models) == (("ocr",), ("codes",))


def test_without_codes_a_sure_picture_is_enough_and_it_is_said_who_is_missing() -> None:
    result = decide(models=("match:1",), failed=("codes",), late=("ocr",), matches=(match("milk", 30.0),))
    assert isinstance(result, Recognition)
    assert (result.failed_models, result.late_models) == (("codes",), ("ocr",))


OUTLINES = st.none() | st.just(WHOLE) | st.just(SMALL)


@given(
    codes=st.lists(st.sampled_from([MILK, JUICE, code("x", "QRCode"), code("281234567890123456", "QRCode")]), max_size=4),
    scores=st.dictionaries(st.sampled_from(["milk", "juice", "bread", "salt"]), st.floats(-5, 50), max_size=4),
    gtins=st.lists(st.sampled_from([MILK.gtin, JUICE.gtin, None]), min_size=4, max_size=4),
    outline=OUTLINES,
    intent=st.sampled_from(Intent),
    quality=st.none() | st.just(GOOD),
)
def test_whatever_is_seen_there_is_one_answer_that_fits_its_schema(
    codes: list[Code],
    scores: dict[str, float],
    gtins: list[str | None],
    outline: service.Corners | None,
    intent: Intent,
    quality: Quality | None,
) -> None:
    matches = tuple(
        match(product, score, gtin=gtin, outline=outline) for (product, score), gtin in zip(scores.items(), gtins, strict=False)
    )
    result = decide(intent, codes=tuple(codes), matches=matches, quality=quality)
    assert type(result).model_validate_json(result.model_dump_json()) == result
    if isinstance(result, Undecided):
        assert 1 <= len({(one.gtin, one.candidate.product_id if one.candidate else None) for one in result.choices}) <= 3
    assert "2812345678" not in result.model_dump_json()


def test_the_shipped_thresholds_are_whole() -> None:
    limits = shipped()
    assert 0 < limits.choice <= limits.ask < limits.act < 1
    if limits.promise is not None:
        assert limits.promise.precision_at_least <= limits.promise.precision
