"""Who is asked, who is waited for, and what is said of who did not answer."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from schemas.ids import MerchantId
from schemas.money import Money
from schemas.recognition import Evidence, Intent, PayeesSeen, Recognition, Unclear, UnclearReason, Undecided
from streams.sightings import recogniser
from streams.sightings.catalogues import Product, Snapshot
from streams.sightings.codes import Read
from streams.sightings.recogniser import Look, Recogniser
from streams.sightings.service import Corners, Frame
from streams.sightings.thresholds import Calibration, shipped
from streams.sightings.triton import Answered, Codes, Failed, Late, Line, Matched, Matches, Quality, Text, Unreadable

CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
MILK, JUICE = "9520000010010", "9520000010027"
SHOP = MerchantId.new()
LIMITS = shipped().model_copy(
    update={"matcher": "sift-1+aaaaaa", "act": 0.9, "calibration": Calibration(intercept=-6.0, score=0.2, margin=0.2)}
)
SNAPSHOT = Snapshot(SHOP, 7, name="shop-7", matcher="sift-1", thresholds=LIMITS)
QUALITY = Quality(sharpness=1000.0, brightness=120.0, glare=0.0, texture=1000.0)


def read(text: str, format: str = "EAN13") -> Read:
    return Read(text=text, format=format, corners=CORNERS, valid=True)


def matched(product_id: str, score: float = 100.0) -> Matched:
    return Matched(snapshot="shop-7", product_id=product_id, score=score, inliers=50, outline=CORNERS)


def product(product_id: str, gtin: str | None = None, picture: str | None = "f" * 64) -> Product:
    return Product(SNAPSHOT, product_id, gtin and gtin.zfill(14), product_id.title(), "en", picture)


@dataclass
class StandIn:
    """Models that say what they are told to, or raise it, after so many seconds. `asked` are those that were, `given_up` those
    whose caller went away."""

    says: dict[str, Any] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    scorer: str = LIMITS.matcher
    quality: Quality = QUALITY
    asked: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    every: bool = False

    async def _answer(self, model: str, time_s: float, otherwise: Any) -> Answered[Any]:
        self.asked.append(model)
        try:
            await asyncio.sleep(min(self.after.get(model, 0.0), time_s))
        except asyncio.CancelledError:
            self.given_up.append(model)
            raise
        if self.after.get(model, 0.0) > time_s:
            raise Late(model)
        said = self.says.get(model, otherwise)
        if isinstance(said, Exception):
            raise said
        return Answered(said, f"{model}:1")

    async def codes(self, frame: bytes, time_s: float, *, search_s: float = 60.0, every: bool = False) -> Answered[Codes]:
        self.every = every
        answer = await self._answer("codes", time_s, ())
        quality = None if any(read.valid for read in answer.result) else self.quality
        return Answered(Codes(width=640, height=480, quality=quality, codes=answer.result), answer.by)

    async def ocr(self, frame: bytes, time_s: float) -> Answered[Text]:
        return await self._answer("ocr", time_s, Text(width=640, height=480, lines=()))

    async def match(
        self, frame: bytes, time_s: float, snapshots: Collection[str], *, candidates: int = 5, explain: bool = False
    ) -> Answered[Matches]:
        self.compared = list(snapshots)
        answer = await self._answer("match", time_s, ())
        said = Matches(matcher=self.scorer, width=640, height=480, quality=self.quality, candidates=answer.result)
        return Answered(said, answer.by)


@dataclass
class Shelf:
    """A catalogue with these products."""

    products: tuple[Product, ...] = ()
    error: Exception | None = None
    after_s: float = 0.0

    @property
    def current(self) -> Mapping[MerchantId, Snapshot]:
        return {SHOP: SNAPSHOT}

    async def find(
        self,
        snapshots: Mapping[MerchantId, Snapshot],
        *,
        gtins: Collection[str] = (),
        own: Collection[tuple[MerchantId, str]] = (),
    ) -> tuple[Product, ...]:
        await asyncio.sleep(self.after_s)
        if self.error is not None:
            raise self.error
        return tuple(one for one in self.products if one.gtin in gtins or (SHOP, one.product_id) in own)


BOTH = Shelf((product("milk", MILK), product("juice", JUICE)))


async def look(models: StandIn, intent: Intent = Intent.IDENTIFY, shelf: Shelf | None = BOTH, time_s: float = 1.0) -> Look:
    recogniser = Recogniser(models, shelf)  # type: ignore[arg-type]
    return await recogniser.look(b"a frame", Frame("s", "0" * 64, intent), time_s, region="DE")


@pytest.mark.parametrize(
    ("intent", "asked"),
    [
        (Intent.IDENTIFY, {"codes", "match"}),
        (Intent.PRICE, {"codes", "ocr", "match"}),
        (Intent.PAY, {"codes"}),
        (Intent.READ, {"codes", "ocr"}),
    ],
)
async def test_who_is_asked_follows_from_what_is_wanted(intent: Intent, asked: set[str]) -> None:
    models = StandIn()
    await look(models, intent)
    assert set(models.asked) == asked
    assert models.every == (intent is Intent.READ)


async def test_without_a_catalogue_nothing_is_matched() -> None:
    models = StandIn()
    answer = (await look(models, shelf=None)).result
    assert models.asked == ["codes"]
    assert isinstance(answer, Unclear) and answer.reason is UnclearReason.NO_CODE


async def test_without_a_catalogue_the_view_is_judged_all_the_same() -> None:
    blurred = StandIn(quality=QUALITY.model_copy(update={"sharpness": 2.0}))
    answer = (await look(blurred, Intent.PAY, shelf=None)).result
    assert isinstance(answer, Unclear) and answer.reason is UnclearReason.BLURRED


@pytest.mark.parametrize(("confidence", "reason"), [(0.9, UnclearReason.UNKNOWN_PRODUCT), (0.5, UnclearReason.GLARE)])
async def test_white_paper_that_can_be_read_does_not_shine(confidence: float, reason: UnclearReason) -> None:
    bright = QUALITY.model_copy(update={"glare": 0.5})
    line = Line(text="Mjölk", confidence=confidence, corners=((0.0, 0.0), (90.0, 0.0), (90.0, 20.0), (0.0, 20.0)))
    found = await look(StandIn(says={"ocr": Text(width=640, height=480, lines=(line,))}, quality=bright), Intent.PRICE)
    assert isinstance(found.result, Unclear) and found.result.reason is reason


async def test_a_code_in_view_that_could_not_be_read_is_no_code_and_says_why() -> None:
    small = ((300.0, 200.0), (380.0, 200.0), (380.0, 230.0), (300.0, 230.0))
    found = await look(StandIn(says={"codes": (Read(text="", format="Linear", corners=small, valid=False),)}))
    assert isinstance(found.result, Unclear) and found.result.reason is UnclearReason.TOO_FAR
    assert found.seen.codes == () and [read.corners for read in found.seen.unread] == [small]


async def test_a_code_that_no_catalogue_could_contradict_is_answered_at_once_and_match_is_not_even_asked() -> None:
    models = StandIn(says={"codes": (read("9520000010034"),)}, after={"match": 5.0})
    began = perf_counter()
    answer = (await look(models, time_s=5.0)).result
    assert perf_counter() - began < 4.0
    assert isinstance(answer, Recognition) and answer.evidence is Evidence.CODE
    assert models.asked == ["codes"] and answer.late_models == ()


async def test_nor_waited_for_where_it_had_begun() -> None:
    models = StandIn({"codes": (read(MILK),)}, after={"codes": 0.05, "match": 5.0})
    found = await look(models, shelf=Shelf(), time_s=5.0)
    assert models.asked == ["codes", "match"] and models.given_up == ["match"]
    assert isinstance(found.result, Recognition) and found.result.late_models == ()


async def test_a_code_that_a_catalogue_knows_waits_a_little_for_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "_FOR_A_CONTRADICTION", 1.0)
    agrees = StandIn(says={"codes": (read(MILK),), "match": (matched("milk"),)}, after={"match": 0.05})
    answer = (await look(agrees, time_s=5.0)).result
    assert isinstance(answer, Recognition) and answer.evidence is Evidence.CODE_AND_PICTURE
    differs = StandIn(says={"codes": (read(MILK),), "match": (matched("juice"),)}, after={"match": 0.05})
    answer = (await look(differs, time_s=5.0)).result
    assert isinstance(answer, Undecided) and answer.reason == "code_and_picture_differ"


async def test_and_not_longer_than_that() -> None:
    models = StandIn(says={"codes": (read(MILK),), "match": (matched("juice"),)}, after={"match": 4.0})
    began = perf_counter()
    answer = (await look(models, time_s=5.0)).result
    assert perf_counter() - began < 3.5
    assert isinstance(answer, Recognition) and answer.evidence is Evidence.CODE
    assert answer.late_models == ("match",) and models.given_up == ["match"], "what is not waited for is cancelled"


async def test_a_tag_beside_a_code_is_waited_for_less_than_a_picture_that_could_contradict_it() -> None:
    models = StandIn(says={"codes": (read(MILK),), "match": (matched("juice"),)}, after={"ocr": 4.0, "match": 1.6})
    answer = (await look(models, Intent.PRICE, time_s=5.0)).result
    assert isinstance(answer, Undecided) and answer.reason == "code_and_picture_differ"
    assert answer.late_models == ("ocr",) and models.given_up == ["ocr"]


async def test_a_picture_alone_is_waited_for_to_the_end() -> None:
    answer = (await look(StandIn(says={"match": (matched("milk"),)}, after={"match": 0.5}), time_s=2.0)).result
    assert isinstance(answer, Recognition) and answer.evidence is Evidence.PICTURE
    assert answer.models == ("codes:1", "match:1")


async def test_who_is_late_is_named_and_the_deadline_is_kept() -> None:
    models = StandIn(says={"match": (matched("milk"),)}, after={"ocr": 5.0})
    began = perf_counter()
    answer = (await look(models, Intent.PRICE, time_s=0.4)).result
    assert perf_counter() - began < 4.0
    assert isinstance(answer, Recognition) and answer.late_models == ("ocr",)


async def test_who_fails_is_named_and_the_others_are_enough() -> None:
    models = StandIn(says={"codes": Failed("codes: StatusCode.UNAVAILABLE"), "match": (matched("milk"),)})
    answer = (await look(models)).result
    assert isinstance(answer, Recognition) and answer.failed_models == ("codes",)


@pytest.mark.parametrize("error", [Failed("gone"), Late("late")])
async def test_when_nobody_answers_that_is_said(error: Exception) -> None:
    answer = (await look(StandIn(says=dict.fromkeys(("codes", "ocr", "match"), error)), Intent.PRICE)).result
    assert isinstance(answer, Unclear) and answer.reason is UnclearReason.RECOGNITION_UNAVAILABLE


async def test_what_is_no_picture_is_so_for_all() -> None:
    models = StandIn(says={"codes": Unreadable("codes")}, after={"ocr": 5.0})
    began = perf_counter()
    with pytest.raises(Unreadable):
        await look(models, Intent.PRICE, time_s=5.0)
    assert perf_counter() - began < 4.0 and "match" not in models.asked


async def test_a_code_is_a_code_while_the_database_is_away() -> None:
    away = Shelf(error=OperationalError("SELECT", {}, psycopg.OperationalError("gone")))
    answer = (await look(StandIn(says={"codes": (read(MILK),), "match": (matched("milk"),)}), shelf=away)).result
    assert isinstance(answer, Recognition) and answer.evidence is Evidence.CODE


async def test_a_code_is_a_code_while_the_database_is_slow() -> None:
    found = await look(StandIn({"codes": (read(MILK),)}), shelf=Shelf(BOTH.products, after_s=5.0))
    assert isinstance(found.result, Recognition) and found.result.evidence is Evidence.CODE
    assert found.result.late_models == ()


async def test_a_product_that_the_catalogue_does_not_tell_of_is_not_told() -> None:
    answer = (await look(StandIn(says={"match": (matched("withdrawn"),)}))).result
    assert isinstance(answer, Unclear)


async def test_a_calibration_of_other_weights_scores_is_never_acted_upon() -> None:
    says = {"match": (matched("milk"),)}
    assert isinstance((await look(StandIn(says=says))).result, Recognition)
    other = await look(StandIn(says=says, scorer="sift-1+bbbbbb"))
    assert isinstance(other.result, Undecided)
    assert [match.limits for match in other.seen.matches] == [shipped()]
    # Those that are shipped act on scores by the weights that are shipped, until the catalogue is calibrated anew.
    assert isinstance((await look(StandIn(says=says, scorer=shipped().matcher))).result, Recognition)


def box(left: float, top: float, right: float, bottom: float) -> Corners:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


BESIDE, ELSEWHERE = box(100, 300, 220, 350), box(500, 20, 620, 70)
CODE = read(MILK).model_copy(update={"corners": box(100, 200, 260, 260)})
PACKET = matched("milk").model_copy(update={"outline": box(60, 40, 300, 280)})
NOTHING = matched("milk", score=-9.0).model_copy(update={"outline": box(560, 400, 600, 460)})


@pytest.mark.parametrize(
    ("in_view", "tag", "told"),
    [
        ({"codes": (CODE,)}, BESIDE, True),
        ({"codes": (CODE,)}, ELSEWHERE, False),
        ({"match": (PACKET,)}, BESIDE, True),
        ({"match": (PACKET,)}, ELSEWHERE, False),
        ({"match": (NOTHING,)}, BESIDE, True),
        ({}, ELSEWHERE, True),
    ],
)
async def test_a_price_tag_is_that_of_the_product_beside_it_or_of_nothing_in_view(
    in_view: dict[str, Any], tag: Corners, told: bool
) -> None:
    lines = (Line(text="1,99 €", confidence=0.99, corners=tag),)
    found = await look(StandIn(says={**in_view, "ocr": Text(width=640, height=480, lines=lines)}), Intent.PRICE)
    price = found.result.price_tag.price if not isinstance(found.result, PayeesSeen) and found.result.price_tag else None
    assert price == (Money.of(199, "EUR") if told else None)


async def test_milliseconds_are_told_of_each_that_was_asked() -> None:
    found = await look(StandIn(after={"ocr": 0.05}), Intent.PRICE)
    assert set(found.ms) == {"codes", "ocr", "match"} and found.ms["ocr"] >= 40
