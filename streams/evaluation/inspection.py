"""Looking at pictures from files as the stage looks at frames: the same client, the same fusion, the same policy. Shared by
`recognise`, `catalogue evaluate` and `catalogue calibrate`."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from schemas.ids import EventId
from schemas.recognition import Candidate, Intent, PayeesSeen, Recognition, Unclear, Undecided
from streams.evaluation.calibration import Answer
from streams.evaluation.drawing import can_write
from streams.evaluation.explanation import Explained, parts_of
from streams.evaluation.manifests import Labelled
from streams.evaluation.measures import Decision, Outcome
from streams.evaluation.picture_files import UnreadablePicture, frame_of
from streams.sightings import service
from streams.sightings.recogniser import Look, Recogniser
from streams.sightings.service import Frame, Result
from streams.sightings.triton import Failed, Late, Models, Unreadable


@dataclass(frozen=True)
class Inspected:
    """One picture. Either `look` or `error` is there. `ms` is from the picture in memory to the decision."""

    file: Path
    frame: bytes = b""
    look: Look | None = None
    error: str | None = None
    ms: float = 0.0


async def inspect(
    recogniser: Recogniser, file: Path, intent: Intent, time_s: float, *, region: str | None = None, explain: bool = False
) -> Inspected:
    """Never raises for what a picture may be."""
    try:
        frame = await asyncio.to_thread(frame_of, file)
    except UnreadablePicture as refusal:
        return Inspected(file, error=str(refusal))
    what = Frame(EventId.new(), hashlib.sha256(frame).hexdigest(), intent)
    began = perf_counter()
    try:
        look = await recogniser.look(frame, what, time_s, region=region, explain=explain)
    except Unreadable:
        return Inspected(file, error="the model cannot read this picture")
    return Inspected(file, frame, look, ms=round((perf_counter() - began) * 1000, 1))


def unseen(inspected: Inspected) -> str | None:
    """Why nothing was measured by this picture, though it can be read: a model that was late or failed says nothing of what the
    picture shows."""
    missing = inspected.look.seen.missing if inspected.look else ()
    return f"no answer of {', '.join(sorted(missing))}" if missing else None


def decision_of(look: Look) -> str:
    match look.result:
        case Recognition():
            return "act"
        case Undecided():
            return "ask"
        case PayeesSeen():
            return "payee"
        case Unclear():
            return "look_again"


def _offered(result: Result) -> list[Candidate]:
    """What the wearer is asked to choose from, if anything."""
    return [choice.candidate for choice in result.choices if choice.candidate] if isinstance(result, Undecided) else []


def candidates_of(look: Look) -> list[Candidate]:
    """What the picture may show, best first: what was decided, then what the pictures are like. A product that only its code
    names, and no catalogue knows, is none of them."""
    decided: list[Candidate | None] = [*_offered(look.result)]
    if isinstance(look.result, Recognition):
        known = [candidate for candidate in look.seen.known if candidate.gtin == look.result.gtin]
        decided = [look.result.candidate or (known[0] if known else None)]
    ranked = [one.candidate for one in service.rank(look.seen.matches, look.seen.matcher)]
    by_product = {(one.merchant_id, one.product_id): one for one in [*reversed(ranked), *(one for one in decided if one)]}
    ordered = dict.fromkeys((one.merchant_id, one.product_id) for one in [*(one for one in decided if one), *ranked])
    return [by_product[product] for product in ordered]


def line_of(inspected: Inspected) -> dict[str, Any]:
    """The JSON line of one picture. Nothing of the picture itself."""
    if inspected.look is None:
        return {"file": str(inspected.file), "error": inspected.error}
    look, result = inspected.look, inspected.look.result
    candidates = candidates_of(look)
    product: dict[str, Any] | None = None
    confidence: float | None = None
    if isinstance(result, Recognition):
        shown = next((one for one in candidates if result.candidate is None or one == result.candidate), None)
        by_code = shown is None or (result.candidate is None and shown.gtin != result.gtin)
        product = {"gtin": result.gtin} if by_code or shown is None else _product(shown)
        product["evidence"] = result.evidence.value
        confidence = round(result.confidence, 4)
        candidates = candidates if by_code else [one for one in candidates if one is not shown]
    line: dict[str, Any] = {
        "file": str(inspected.file),
        "codes": [code.model_dump(mode="json", exclude_none=True) for code in look.seen.codes],
        "price": look.seen.price_tag.model_dump(mode="json", exclude_none=True) if look.seen.price_tag else None,
        "product": product,
        "confidence": confidence,
        "choices": [_product(choice) for choice in _offered(result)],
        "alternatives": [{**_product(one), "confidence": round(one.confidence, 4)} for one in candidates],
        "decision": decision_of(look),
        "reason": result.reason if isinstance(result, Undecided | Unclear) else None,
        "models": list(look.seen.models),
        "late_models": list(look.seen.late),
        "failed_models": list(look.seen.failed),
        "ms": {**look.ms, "all": inspected.ms},
    }
    return line


def _product(candidate: Candidate) -> dict[str, Any]:
    return {
        "merchant_id": candidate.merchant_id,
        "product_id": candidate.product_id,
        "gtin": candidate.gtin,
        "title": candidate.title,
    }


def named(product: Mapping[str, Any]) -> str:
    """As it stands in a line: by its number alone where no catalogue has it."""
    number = product.get("gtin") or product.get("product_id")
    return f"{product['title']} ({number})" if product.get("title") else f"GTIN {number}"


def in_words(name: str) -> str:
    return name.replace("_", " ")


def sentences_of(inspected: Inspected) -> list[str]:
    """What was decided and what it rests on, in lines."""
    line = line_of(inspected)
    if "error" in line:
        return [str(line["error"])]
    reason = f" ({in_words(line['reason'])})" if line["reason"] else ""
    said = [f"decision: {in_words(line['decision'])}{reason}"]
    if product := line["product"]:
        said.append(f"product: {named(product)}, by {in_words(product['evidence'])}, {line['confidence']}")
    said += [f"choice: {named(choice)}" for choice in line["choices"]]
    said += [f"like: {named(one)}, {one['confidence']}" for one in line["alternatives"][:3]]
    look = inspected.look
    assert look is not None
    if look.seen.price_tag:
        said.append(f"price: {', '.join(parts_of(look.seen.price_tag))} (confidence {look.seen.price_tag.confidence:.2f})")
    if quality := look.seen.quality:
        said.append(
            f"view: sharpness {quality.sharpness:.3g}, brightness {quality.brightness:.3g}, glare {quality.glare:.3g},"
            f" texture {quality.texture:.3g}"
        )
    said.append(", ".join(f"{model} {ms:g} ms" for model, ms in line["ms"].items()))
    return said


def explained(inspected: Inspected) -> Explained:
    """To be drawn; of a picture that was looked at."""
    look = inspected.look
    assert look is not None
    titles = {one.product_id: one.title for one in candidates_of(look) if can_write(one.title)}
    return Explained(
        frame=inspected.frame,
        codes=look.seen.codes,
        lines=look.text.lines if look.text else (),
        matched=[(one, titles.get(one.product_id, one.product_id)) for one in (look.matches.candidates if look.matches else ())],
        price_tag=look.seen.price_tag,
        sentences=sentences_of(inspected),
    )


def outcome_of(labelled: Labelled, inspected: Inspected) -> Outcome:
    """Of a picture that was looked at. A product that no catalogue knows, read from its code, is another than any that the
    picture may show."""
    look = inspected.look
    assert look is not None
    candidates = candidates_of(look)
    ranked = [one.product_id for one in candidates]
    confidence = candidates[0].confidence if candidates else 0.0
    decision: Decision = "look_again"
    choices: tuple[str, ...] = ()
    if isinstance(look.result, Recognition):
        decision, confidence = "act", look.result.confidence
        if look.result.candidate is None and (not candidates or candidates[0].gtin != look.result.gtin):
            ranked.insert(0, f"GTIN {look.result.gtin}")
    elif isinstance(look.result, Undecided):
        decision = "ask"
        choices = tuple(choice.product_id for choice in _offered(look.result))
    return Outcome(str(labelled.file), labelled.product, tuple(ranked), confidence, decision, inspected.ms, choices)


async def matched(models: Models, labelled: Labelled, snapshot: str, time_s: float, *, left_out: bool = False) -> Answer | str:
    """The matcher's own answer, before any policy; or why there is none. `left_out`: the product is not in this snapshot."""
    try:
        frame = await asyncio.to_thread(frame_of, labelled.file)
        answer = await models.match(frame, time_s, [snapshot])
    except UnreadablePicture as refusal:
        return str(refusal)
    except (Unreadable, Late, Failed) as error:
        return f"match did not answer: {error}"
    best: dict[str, float] = {}
    for one in sorted(answer.result.candidates, key=lambda one: -one.score):
        best.setdefault(one.product_id, one.score)
    return Answer(
        file=str(labelled.file),
        product=None if left_out else labelled.product,
        scores=tuple(best.items()),
        group=labelled.product or labelled.file.name,  # not where the pictures lie: the halves are the same on any machine
        matcher=answer.result.matcher,
    )
