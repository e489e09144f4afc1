"""One frame, all models, one deadline. The stage and the commands look through this.

Which models are asked follows from what the wearer wants; they run beside each other, and who is late is left out and named.
Three things keep an answer quick without making it worse:

- A frame with a code has its product within milliseconds. `match` therefore starts a moment later than the rest, and is not
  waited for where the code's product is in no catalogue with pictures: then nothing could contradict it.
- Once one product's code is read, the others have a share of what time is left: `match` a large one, because it could contradict,
  `ocr` a small one, for a tag beside it. Text takes longest, and where many look, others would get no answer.
- `codes` searches on for codes that cannot be seen at once, but not all the time there is: the next frame waits behind.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol, TypeVar

from schemas.ids import MerchantId
from schemas.recognition import Candidate, Code, Intent, PriceTag
from streams.core.database import is_unavailable
from streams.core.telemetry import metrics
from streams.sightings import codes, places, price_places, price_tags, service
from streams.sightings.catalogues import NONE, Product, Snapshot
from streams.sightings.service import Frame, Match, Result, Seen
from streams.sightings.triton import Answered, Codes, Failed, Late, Matches, Models, Text, Unreadable

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

ASKED: Mapping[Intent, tuple[str, ...]] = {
    Intent.IDENTIFY: ("codes", "match"),
    Intent.PRICE: ("codes", "ocr", "match"),
    Intent.PAY: ("codes",),
    Intent.READ: ("codes", "ocr"),
}

_HEAD_START_S = 0.02  # of codes before match: nearly all codes that are read at all are read by then
_SEARCH = 0.4  # of the time there is, for codes that cannot be seen at once
_SAID_AGAIN_S = 60.0
_FINDING_S = 0.1  # in the database, what was read or matched; usually a few milliseconds
# Of the time left when one product's code was read, for which the others are waited for; for a tag at least so many seconds.
_FOR_A_CONTRADICTION, _FOR_TEXT, _FOR_A_TAG, _FOR_A_TAG_S = 0.5, 0.7, 0.25, 0.4
_LEGIBLE = 0.8  # a line's confidence
_LEGIBLE_CHARACTERS = 3


class CatalogueView(Protocol):
    """See streams.sightings.catalogues.Catalogues."""

    @property
    def current(self) -> Mapping[MerchantId, Snapshot]: ...

    async def find(
        self,
        snapshots: Mapping[MerchantId, Snapshot],
        *,
        gtins: Collection[str] = (),
        own: Collection[tuple[MerchantId, str]] = (),
    ) -> tuple[Product, ...]: ...


class NoCatalogues:
    """Nothing is recognised by picture."""

    current = NONE

    async def find(
        self,
        snapshots: Mapping[MerchantId, Snapshot],
        *,
        gtins: Collection[str] = (),
        own: Collection[tuple[MerchantId, str]] = (),
    ) -> tuple[Product, ...]:
        return ()


@dataclass(frozen=True)
class Look:
    """What came of a frame: the answer, what it rests on, and how long each model took, in milliseconds. `text` and `matches` are
    the models' own words, for who wants to see why."""

    result: Result
    seen: Seen
    ms: Mapping[str, float] = field(default_factory=dict)
    text: Text | None = None
    matches: Matches | None = None


@dataclass(frozen=True)
class _Meanings:
    """`said` by the model, what that means, and the catalogues' products with these codes."""

    said: Codes
    codes: tuple[Code, ...]
    known: tuple[Product, ...]

    @property
    def gtins(self) -> frozenset[str]:
        return service.gtins(self.codes)

    @property
    def contradictable(self) -> bool:
        """Whether a picture could say something else that counts: not where one product is read that no catalogue recognises."""
        return len(self.gtins) != 1 or any(product.recognisable for product in self.known)


@dataclass(frozen=True)
class _Matching:
    matches: Matches
    products: tuple[Product, ...]


@dataclass
class _Asking:
    """One frame's questions under way. `ends` by the process's clock."""

    frame: bytes
    what: Frame
    region: str | None
    ends: float
    snapshots: Mapping[MerchantId, Snapshot]
    explain: bool
    ms: dict[str, float] = field(default_factory=dict)

    def left(self, at_most: float = math.inf) -> float:
        return max(min(self.ends - perf_counter(), at_most), 0.0)


class Recogniser:
    def __init__(self, models: Models, catalogues: CatalogueView | None = None) -> None:
        self._models = models
        self._catalogues: CatalogueView = catalogues or NoCatalogues()
        self._said: dict[tuple[str, ...], float] = {}
        self._left_out: dict[str | None, frozenset[MerchantId]] = {}

    async def look(self, frame: bytes, what: Frame, time_s: float, *, region: str | None = None, explain: bool = False) -> Look:
        """The answer, in `time_s` at the latest. `region`: where the glasses are, ISO 3166. Raises Unreadable; whatever else
        happens to a model is part of the answer."""
        asking = _Asking(frame, what, region, perf_counter() + time_s, self._catalogues.current, explain)
        wanted = ASKED[what.intent]
        reading = asyncio.create_task(self._codes(asking))
        tasks: dict[str, asyncio.Task[Any]] = {"codes": reading}
        if "ocr" in wanted:
            tasks["ocr"] = asyncio.create_task(self._ocr(asking))
        if "match" in wanted and any(snapshot.name for snapshot in asking.snapshots.values()):
            tasks["match"] = asyncio.create_task(self._match(asking, reading))
        everyone = tuple(tasks.values())
        try:
            await asyncio.wait([reading], timeout=asking.left())
            if _needs_no_picture(reading) and (needless := tasks.pop("match", None)):
                needless.cancel()
            await _wait_for_others(asking, tasks, reading)
        finally:
            for task in everyone:
                task.cancel()
            await asyncio.gather(*everyone, return_exceptions=True)
        return _look(asking, tasks, self._tell)

    async def _codes(self, asking: _Asking) -> Answered[_Meanings]:
        every = asking.what.intent is Intent.READ
        asked = self._models.codes(asking.frame, asking.left(), search_s=_SEARCH * asking.left(), every=every)
        answer = await _timed(asking, "codes", asked)
        meanings = tuple(codes.meaning(read, asking.what.intent, asking.region) for read in answer.result.read)
        known: tuple[Product, ...] = ()
        if (found := service.gtins(meanings)) and "match" in ASKED[asking.what.intent]:
            known = await self._find(asking, gtins=found)
        return Answered(_Meanings(answer.result, meanings, known), answer.by)

    async def _ocr(self, asking: _Asking) -> Answered[Text]:
        return await _timed(asking, "ocr", self._models.ocr(asking.frame, asking.left()))

    async def _match(self, asking: _Asking, reading: "asyncio.Task[Answered[_Meanings]]") -> Answered[_Matching] | None:
        """None where it was not asked."""
        await asyncio.wait([reading], timeout=asking.left(_HEAD_START_S))
        if _needs_no_picture(reading):
            return None
        merchants = self._merchants(asking)
        asked = self._models.match(asking.frame, asking.left(), list(merchants), explain=asking.explain)
        answer = await _timed(asking, "match", asked)
        self._report(answer.result.refused)
        own = {(merchants[one.snapshot], one.product_id) for one in answer.result.candidates if one.snapshot in merchants}
        products = await self._find(asking, own=own) if own else ()
        return Answered(_Matching(answer.result, products), answer.by)

    def _merchants(self, asking: _Asking) -> dict[str, MerchantId]:
        """By the names of the snapshots that the frame is compared with."""
        chosen = places.nearest(asking.snapshots, asking.region)
        if chosen.left_out:
            metrics.count("augenblick.catalogues.left_out", len(chosen.left_out))
        if chosen.left_out != self._left_out.get(asking.region, frozenset()):
            self._left_out[asking.region] = chosen.left_out
            log.warning(
                "%d catalogues with pictures are not looked at in %s: %d are the most",
                len(chosen.left_out),
                asking.region or "no region",
                places.AT_MOST,
            )
        return {snapshot.name: snapshot.merchant_id for snapshot in chosen.snapshots if snapshot.name}

    def _report(self, refused: Mapping[str, str]) -> None:
        if refused:
            metrics.count("augenblick.catalogues.left_out", len(refused))
        for name, why in refused.items():
            if self._is_news(name, why):
                log.warning("nothing of the snapshot %s is recognised: %s", name, why)

    def _tell(self, what: str) -> None:
        if self._is_news(what):
            log.warning("a model did not answer: %s", what)

    def _is_news(self, *what: str) -> bool:
        """Whether it was not said within the last minute: it would come with every frame."""
        now = perf_counter()
        self._said = {said: at for said, at in self._said.items() if now - at < _SAID_AGAIN_S}
        return self._said.setdefault(what, now) == now

    async def _find(
        self, asking: _Asking, *, gtins: Collection[str] = (), own: Collection[tuple[MerchantId, str]] = ()
    ) -> tuple[Product, ...]:
        """Nothing where the database is away or slow: a code is a code all the same."""
        if not asking.snapshots:
            return ()
        try:
            async with asyncio.timeout(asking.left(_FINDING_S)):
                return await self._catalogues.find(asking.snapshots, gtins=gtins, own=own)
        except Exception as error:
            if not (isinstance(error, TimeoutError) or is_unavailable(error)):
                raise
            log.warning("the catalogues cannot be read: %s", type(error).__qualname__)
            return ()


async def _timed(asking: _Asking, model: str, call: Awaitable[Answer]) -> Answer:
    began = perf_counter()
    try:
        return await call
    finally:
        asking.ms[model] = round((perf_counter() - began) * 1000, 1)


def _needs_no_picture(reading: "asyncio.Task[Answered[_Meanings]]") -> bool:
    """Whether codes has answered, and no picture could say something else that counts."""
    if not reading.done() or reading.cancelled():
        return False
    if (error := reading.exception()) is not None:
        return isinstance(error, Unreadable)
    return not reading.result().result.contradictable


async def _wait_for_others(
    asking: _Asking, tasks: Mapping[str, "asyncio.Task[Any]"], reading: "asyncio.Task[Answered[_Meanings]]"
) -> None:
    """When codes has answered, or is late: for each as long as it is worth."""
    left = asking.left()
    until = {name: asking.ends - left + _worth(name, asking.what.intent, left, reading) for name in tasks}
    for name in sorted(tasks, key=until.__getitem__):
        if tasks[name] is not reading:
            await asyncio.wait([tasks[name]], timeout=max(until[name] - perf_counter(), 0.0))


def _worth(model: str, intent: Intent, left: float, reading: "asyncio.Task[Answered[_Meanings]]") -> float:
    """Seconds."""
    if not reading.done() or reading.cancelled():
        return left
    if (error := reading.exception()) is not None:
        return 0.0 if isinstance(error, Unreadable) else left
    if len(reading.result().result.gtins) != 1:
        return left
    if model == "match":
        return _FOR_A_CONTRADICTION * left
    return _FOR_TEXT * left if intent is Intent.READ else min(left, max(_FOR_A_TAG * left, _FOR_A_TAG_S))


def _look(asking: _Asking, tasks: Mapping[str, "asyncio.Task[Any]"], tell: Callable[[str], None]) -> Look:
    """`tell` is given what was the matter with a model. Raises Unreadable."""
    answers: dict[str, Answered[Any]] = {}
    late, failed = [], []
    for name, task in tasks.items():
        if task.cancelled() or isinstance(error := task.exception(), Late):
            tell(f"{name}: not in time")
            late.append(name)
        elif isinstance(error, Failed):
            tell(str(error))
            failed.append(name)
        elif error is not None:
            raise error
        elif (answer := task.result()) is not None:
            answers[name] = answer
    for name, reason in [*((name, "late") for name in late), *((name, "failed") for name in failed)]:
        metrics.count("augenblick.models.missing", model=name, reason=reason)
    read: _Meanings | None = answers["codes"].result if "codes" in answers else None
    text: Text | None = answers["ocr"].result if "ocr" in answers else None
    matching: _Matching | None = answers["match"].result if "match" in answers else None
    # `match` measures the picture that it compares; `codes` is asked whatever the wearer wants.
    measured = matching.matches if matching else read.said if read else None
    seen = Seen(
        codes=read.codes if read else (),
        unread=read.said.unread if read else (),
        matches=_matches(matching) if matching else (),
        matcher=matching.matches.matcher if matching else None,
        quality=measured.quality if measured else None,
        size=(measured.width, measured.height) if measured else (0, 0),
        known=tuple(_candidate(product) for product in read.known) if read else (),
        models=tuple(answer.by for answer in answers.values()),
        late=tuple(late),
        failed=tuple(failed),
    )
    if text is not None:
        legible = any(line.confidence >= _LEGIBLE and len(line.text) >= _LEGIBLE_CHARACTERS for line in text.lines)
        seen = replace(seen, price_tag=_price_tag(text, seen, asking.region), legible=legible)
    result = service.decide(asking.what, seen)
    return Look(result, seen, asking.ms, text, matching.matches if matching else None)


def _price_tag(text: Text, seen: Seen, region: str | None) -> PriceTag | None:
    """The tag of the product in view, or the one in the middle where no product is seen; None where none can be read surely."""
    by_code = [code.corners for code in seen.codes if code.gtin]
    # What is not even worth a question lies anywhere.
    likely = [one.candidate.outline for one in service.rank(seen.matches, seen.matcher)[:1] if one.acts or one.asks]
    outlines = by_code or [outline for outline in likely if outline]
    near = [corner for outline in outlines for corner in outline]
    tag = price_tags.read(text.lines, size=(text.width, text.height), region=region, near=near)
    if not isinstance(tag, PriceTag):
        return None
    is_its = not outlines or any(price_places.belongs(tag.corners, outline, code=bool(by_code)) for outline in outlines)
    return tag if is_its else None


def _matches(matching: _Matching) -> tuple[Match, ...]:
    """Those of products that the catalogue still tells of."""
    products = {(product.snapshot.name, product.product_id): product for product in matching.products}
    return tuple(
        Match(
            merchant_id=product.snapshot.merchant_id,
            product_id=product.product_id,
            title=product.title,
            language=product.language,
            snapshot=product.snapshot.number,
            score=one.score,
            limits=product.snapshot.limits(matching.matches.matcher),
            gtin=product.gtin,
            inliers=one.inliers,
            outline=one.outline,
            picture=product.picture,
        )
        for one in matching.matches.candidates
        if (product := products.get((one.snapshot, one.product_id)))
    )


def _candidate(product: Product) -> Candidate:
    """Of a code that was read: nothing was matched."""
    return Candidate(
        merchant_id=product.snapshot.merchant_id,
        product_id=product.product_id,
        gtin=product.gtin,
        title=product.title,
        language=product.language,
        confidence=1.0,
        picture=product.picture,
        snapshot=product.snapshot.number,
    )
