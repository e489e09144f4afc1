"""Price tags: `python -m benchmarks.price_tags [COUNT] [FILE]`, or `… DATASET [FILE]`.

COUNT generated tags (750 unless given; infra/sandbox/pictures/price_tags.py) through a real tritonserver's `ocr`, and what the
reader makes of its lines. Layouts that the reader was tuned with and those it was not are told apart; none of these very tags, of
either kind, was used for tuning: they are drawn with another seed. Peer: the largest number in the picture, in the currency of
the region, from the same lines.

exact       price and currency are right, of all tags
wrong       a price was told, and it is not the tag's, of all tags
area        under the curve of precision against coverage, over all thresholds of the confidence

DATASET is the folder of the Grocery Store dataset: its photographs in `train` and `val`, 348×348 pixels, show Swedish shelves,
most of them no tag that could be read. Prices that are told are compared with what those tags say whose prices were read by eye
(shelf_prices.json); any other is counted as wrong, and listed.

FILE keeps what `ocr` answered, for the next time: reading takes minutes, and the rest a second.
"""

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.figures import Latency
from infra.local.stack import LocalStack
from infra.sandbox.pictures.price_tags import LAYOUTS, Tag, tag
from schemas.money import Money
from schemas.recognition import PriceTag
from streams.sightings import price_tags, thresholds
from streams.sightings.price_places import Line
from streams.sightings.price_texts import habits
from streams.sightings.triton import Models, Text

_SEED = "reported 2"
_COUNT = 750
_WAITS_S = 30.0
_READ_BY_EYE = Path(__file__).with_name("shelf_prices.json")


@dataclass(frozen=True)
class Outcome:
    """What was made of one tag. `confidence` is 0 where no price was found at all."""

    tag: Tag
    answer: PriceTag | price_tags.Abstention
    naive: Money | None

    @property
    def right(self) -> bool:
        return isinstance(self.answer, PriceTag) and self.answer.price == self.tag.truth.price

    @property
    def confidence(self) -> float:
        return self.answer.confidence if isinstance(self.answer, PriceTag) else 0.0

    @property
    def accepted(self) -> bool:
        return self.confidence >= thresholds.shipped().price_tag.least_confidence


async def read(jpegs: Sequence[bytes]) -> tuple[list[Text], list[float]]:
    """What `ocr` says of each picture, and in how many milliseconds, one after the other."""
    answers, times = [], []
    with tempfile.TemporaryDirectory() as root:
        async with LocalStack(Path(root), components=("triton",), configured={}) as stack:
            models = Models(stack.environment["TRITON_URL"])
            for jpeg in track(jpegs, "ocr", console=Console(stderr=True)):
                begun = perf_counter()
                answer = await models.ocr(jpeg, _WAITS_S)
                times.append((perf_counter() - begun) * 1000)
                answers.append(answer.result)
            await models.close()
    return answers, times


def outcome(each: Tag, text: Text) -> Outcome:
    size = text.width, text.height
    answer = price_tags.read(text.lines, size=size, region=each.region, least_confidence=0)
    return Outcome(each, answer, largest_number(text.lines, each.region))


def largest_number(lines: Sequence[Line], region: str) -> Money | None:
    """The peer: the tallest line that has a number is the price."""
    numbered = [
        (abs(line.corners[3][1] - line.corners[0][1]), match.group())
        for line in lines
        if (match := re.search(r"\d+(?:[.,:]\d{1,2})?", line.text))
    ]
    if not numbered:
        return None
    try:
        return Money.from_major(Decimal(re.sub("[,:]", ".", max(numbered)[1])), habits(region).currencies[0])
    except ValueError:
        return None


def area(outcomes: Sequence[Outcome]) -> float:
    """Under precision against coverage: 1 where every tag is told, and rightly."""
    ordered = sorted(outcomes, key=lambda each: -each.confidence)
    right, total = 0, 0.0
    for told, each in enumerate(ordered, 1):
        right += each.right
        total += right / told if each.confidence else 0.0
    return total / len(ordered)


def also_right(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """Of the accepted tags that have it, how many also had this right."""
    counts = dict.fromkeys(("was", "unit_price", "quantity", "conditions"), (0, 0))
    for each in outcomes:
        if not each.accepted or not isinstance(each.answer, PriceTag):
            continue
        for name, (right, of) in counts.items():
            theirs, ours = getattr(each.tag.truth, name), getattr(each.answer, name)
            if theirs:
                counts[name] = right + (_as_text(theirs) == _as_text(ours)), of + 1
    return counts


def _as_text(value: Any) -> str:
    """Decimals without their trailing zeros, conditions in any order."""
    if isinstance(value, tuple):
        return str(sorted(_as_text(each) for each in value))
    return json.dumps(value.model_dump(), default=lambda number: f"{number.normalize():f}") if value else ""


def table(title: str, groups: dict[str, Sequence[Outcome]]) -> Table:
    drawn = Table("", "tags", "exact %", "wrong %", "nothing told %", "area", "largest number %", "ours ÷ its", title=title)
    for name, outcomes in groups.items():
        count = len(outcomes)
        exact = sum(each.right and each.accepted for each in outcomes) / count
        wrong = sum(not each.right and each.accepted for each in outcomes) / count
        naive = sum(each.naive == each.tag.truth.price for each in outcomes) / count
        silent = 1 - exact - wrong
        cells = (f"{100 * exact:.1f}", f"{100 * wrong:.2f}", f"{100 * silent:.1f}", f"{area(outcomes):.4f}", f"{100 * naive:.1f}")
        drawn.add_row(name, str(count), *cells, f"{exact / naive:.2f}" if naive else "–")
    return drawn


def kept_or_read(jpegs: Sequence[bytes], kept: Path | None) -> tuple[list[Text], list[float]]:
    """The times are empty where nothing was read anew."""
    if kept and kept.exists():
        return [Text.model_validate(each) for each in json.loads(kept.read_text())[: len(jpegs)]], []
    answers, times = asyncio.run(read(jpegs))
    if kept:
        kept.write_text(json.dumps([each.model_dump(mode="json") for each in answers], ensure_ascii=False))
    return answers, times


def photographs(dataset: Path, kept: Path | None) -> None:
    by_eye: dict[str, str] = json.loads(_READ_BY_EYE.read_text())
    paths = sorted(path for part in ("train", "val") for path in (dataset / part).glob("*/*.jpg"))
    answers, _ = kept_or_read([path.read_bytes() for path in paths], kept)
    told, wrong = 0, []
    for path, text in zip(paths, answers, strict=True):
        answer = price_tags.read(text.lines, size=(text.width, text.height), region="SE")
        if isinstance(answer, PriceTag):
            told += 1
            name = path.relative_to(dataset).as_posix()
            if by_eye.get(name) != str(answer.price.major):
                wrong.append(f"{name}: {answer.price}, by eye {by_eye.get(name, 'not read')}")
    print(f"{len(paths)} photographs of shelves: {told} prices told, {told - len(wrong)} right; read by eye on {len(by_eye)}")
    for line in wrong:
        print(line)


def main() -> None:
    kept = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        photographs(Path(sys.argv[1]), kept)
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _COUNT
    tags = [tag(number, _SEED) for number in range(count)]
    answers, times = kept_or_read([each.jpeg for each in tags], kept)
    outcomes = [outcome(each, answer) for each, answer in zip(tags, answers, strict=True)]
    tuned = [each for each in outcomes if each.tag.tuned]
    untouched = [each for each in outcomes if not each.tag.tuned]
    console = Console(width=max(110, Console().width))
    console.print(table("price and currency", {"all": outcomes, "tuned layouts": tuned, "untouched layouts": untouched}))
    promised = thresholds.shipped().price_tag
    console.print(
        f"promised from a confidence of {promised.least_confidence} on, by {promised.tags} tags:"
        f" {100 * promised.exact:.1f} % exact, {100 * promised.wrong:.2f} % wrong"
    )
    by_layout = {layout.name: [each for each in outcomes if each.tag.layout == layout.name] for layout in LAYOUTS}
    console.print(table("by layout; the last eight are untouched", {name: found for name, found in by_layout.items() if found}))
    extras = Table("", *also_right([]), title="also right, of accepted tags that show it")
    for name, found in (("all", outcomes), ("tuned layouts", tuned), ("untouched layouts", untouched)):
        extras.add_row(name, *(f"{right}/{of}" for right, of in also_right(found).values()))
    console.print(extras)
    if len(times) > 2:
        taken = Latency("ocr", times)
        console.print(f"ocr through Triton, one caller: p50 {taken.percentile(50):.0f} ms, p95 {taken.percentile(95):.0f} ms")


if __name__ == "__main__":
    main()
