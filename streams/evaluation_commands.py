"""`augenblick catalogue evaluate` and `calibrate`: how well a catalogue's products are recognised, and when to act on it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import Misconfigured
from schemas.recognition import Intent
from streams.command_line import JsonOption, print_json, print_table, printable, progress_bar, with_parts
from streams.recognition_commands import DeadlineOption, make_directory

if TYPE_CHECKING:
    from streams.catalogues.store import KnownProduct
    from streams.core.bootstrap import Parts
    from streams.evaluation.calibration import Answer, Shown, SplitBy
    from streams.evaluation.manifests import Labelled
    from streams.evaluation.measures import Outcome, Report
    from streams.evaluation.plots import Case
    from streams.sightings.catalogues import Snapshot
    from streams.sightings.thresholds import Thresholds
    from streams.sightings.triton import Models

app = typer.Typer(no_args_is_help=True)
"""Part of `augenblick catalogue`."""

ManifestArgument = Annotated[
    Path,
    typer.Argument(
        exists=True,
        dir_okay=False,
        help="CSV: file,product. Files beside it; product_id or GTIN, empty where the picture shows nothing of the catalogue",
    ),
]
CatalogueOption = Annotated[str, typer.Option("--catalogue", help="whose catalogue: the merchant's id, mer_…, or its name")]

_REPORTED_AT_MOST = 20  # pictures that could not be used, by name


@app.command("evaluate")
def evaluate(
    manifest: ManifestArgument,
    catalogue: CatalogueOption,
    output: Annotated[
        Path | None,
        typer.Option(file_okay=False, metavar="DIRECTORY", help="write contact sheets of the errors and the plot there"),
    ] = None,
    as_json: JsonOption = False,
    deadline_ms: DeadlineOption = 5000,
) -> None:
    """Measure how well a catalogue's products are recognised in pictures of which it is known what they show. Exit status 1 where
    a picture could not be read."""
    if output is not None:
        make_directory(output)
    evaluated = with_parts(lambda parts: _evaluate(parts, manifest, catalogue, deadline_ms / 1000, output))
    if as_json:
        files = {"files": [str(file) for file in evaluated.files], "unusable": dict(evaluated.unusable)}
        print_json({**evaluated.report.document(), "snapshot": evaluated.snapshot, **files})
    else:
        _show_report(evaluated)
    _report_unusable(evaluated.unusable)
    if evaluated.unusable:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Evaluated:
    """`files` were written; `unusable`: a picture that is not counted, and why."""

    report: "Report"
    snapshot: int
    files: Sequence[Path]
    unusable: Sequence[tuple[str, str]]


async def _evaluate(parts: "Parts", manifest: Path, catalogue: str, time_s: float, output: Path | None) -> _Evaluated:
    from streams.evaluation.inspection import inspect, line_of, outcome_of, unseen
    from streams.evaluation.manifests import read_manifest
    from streams.evaluation.measures import report
    from streams.evaluation.running import running_models, snapshot_with_pictures
    from streams.sightings.catalogues import ChosenCatalogues
    from streams.sightings.recogniser import Recogniser

    outcomes: list[Outcome] = []
    unusable: list[tuple[str, str]] = []
    files: list[Path] = []
    async with running_models(parts) as models:
        snapshot, products = await snapshot_with_pictures(parts, models, catalogue)
        labelled = read_manifest(manifest, {product: known.gtin for product, known in products.items()})
        recogniser = Recogniser(models, ChosenCatalogues(parts.database(), {snapshot.merchant_id: snapshot}))
        limits = snapshot.thresholds
        with progress_bar(len(labelled)) as show_progress, _lines(output / "answers.jsonl" if output else None) as write:
            for number, each in enumerate(labelled, 1):
                inspected = await inspect(recogniser, each.file, Intent.IDENTIFY, time_s)
                write({**line_of(inspected), "right": each.product})
                if (why := inspected.error or unseen(inspected)) is None:
                    outcomes.append(outcome_of(each, inspected))
                else:
                    unusable.append((str(each.file), why))
                if inspected.look and inspected.look.seen.matcher:
                    limits = snapshot.limits(inspected.look.seen.matcher)
                show_progress(number, len(labelled))
    if not outcomes:
        raise _nothing_usable(unusable)
    if output is not None:
        files = [output / "answers.jsonl", *await _draw(parts, snapshot, products, outcomes, limits.act, output)]
    return _Evaluated(report(outcomes), snapshot.number, files, unusable)


async def _draw(
    parts: "Parts",
    snapshot: "Snapshot",
    products: Mapping[str, "KnownProduct"],
    outcomes: "Sequence[Outcome]",
    act: float,
    directory: Path,
) -> list[Path]:
    """The plot, and the errors, the surest first: those harm most."""
    from streams.catalogues.store import find_thumbnail
    from streams.evaluation.plots import contact_sheets, precision_coverage_plot

    errors = sorted((each for each in outcomes if each.is_error), key=lambda each: -each.confidence)
    shown = {product for each in errors for product in (each.first, each.product) if product and product in products}
    thumbnails: dict[str, bytes | None] = {}
    async with parts.database().transaction() as connection:
        for product in sorted(shown):
            picture = products[product].picture
            thumbnails[product] = await find_thumbnail(connection, picture) if picture else None
    plot = directory / "precision-coverage.png"
    known = [each for each in outcomes if each.product]
    title = f"snapshot {snapshot.number} of {snapshot.merchant_id}: {len(known)} pictures of its products"
    precision_coverage_plot(known, plot, title=title, act=act)
    return [plot, *contact_sheets(_cases(errors, products, thumbnails), directory)]


def _cases(
    errors: "Sequence[Outcome]", products: Mapping[str, "KnownProduct"], thumbnails: Mapping[str, bytes | None]
) -> "Iterator[Case]":
    from streams.evaluation.drawing import can_write
    from streams.evaluation.inspection import in_words
    from streams.evaluation.plots import Case, Panel

    def panel(product: str | None) -> Panel | None:
        if product is None:
            return None
        title = products[product].title if product in products else product
        named = title != product and can_write(title)
        return Panel(f"{title} ({product})" if named else product, thumbnails.get(product))

    for error in errors:
        caption = f"{in_words(error.decision)}, {error.confidence:.2f}: {Path(error.file).name}"
        yield Case(Path(error.file), caption, panel(error.first), panel(error.product))


def _show_report(evaluated: _Evaluated) -> None:
    from streams.evaluation.inspection import in_words

    report = evaluated.report
    rows = [
        ("the right product first (R@1)", report.recall_at_1),
        ("among the first five (R@5)", report.recall_at_5),
        ("acted on, and right", report.acted),
        ("asked about, and among the choices", report.asked),
        ("no product in view, not acted on", report.unknown),
    ]
    print_table(
        f"{report.pictures} pictures, snapshot {evaluated.snapshot}",
        ("", "share", "at least"),
        ((name, str(share), f"{share.at_least:.3f}" if share.of else "") for name, share in rows),
    )
    if report.curve:
        print_table(
            "Precision at coverage",
            ("coverage", "precision", "at least", "pictures", "from confidence"),
            (
                (
                    f"{point.coverage:.2f}",
                    f"{point.precision:.3f}",
                    f"{point.at_least:.3f}",
                    str(point.pictures),
                    f"{point.confidence:.4f}",
                )
                for point in report.curve
            ),
        )
    decisions = ", ".join(f"{in_words(word)} {count}" for word, count in sorted(report.decisions.items()))
    typer.echo(f"decisions at the catalogue's thresholds: {decisions or 'none'}")
    if report.ms_p50 is not None and report.ms_p95 is not None:
        typer.echo(f"from picture to decision: p50 {report.ms_p50:.0f} ms, p95 {report.ms_p95:.0f} ms")
    for file in evaluated.files:
        typer.echo(printable(f"written: {file}"))


@app.command("calibrate")
def calibrate(
    manifest: ManifestArgument,
    catalogue: CatalogueOption,
    precision: Annotated[float, typer.Option(min=0.5, max=0.9999, help="how often acting on a picture is to be right")] = 0.95,
    unknown_rate: Annotated[
        float,
        typer.Option(min=0.5, max=0.9999, help="how often a picture of nothing in the catalogue is not to be acted on"),
    ] = 0.98,
    leave_one_out: Annotated[
        bool,
        typer.Option("--leave-one-out", help="also ask of each picture without its product in the catalogue"),
    ] = False,
    own_offsets: Annotated[
        bool,
        typer.Option("--own-offsets", help="fit products with many pictures by themselves; they count for these products only"),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="write the thresholds there, and do not use them for the catalogue"),
    ] = None,
    as_json: JsonOption = False,
    deadline_ms: DeadlineOption = 10_000,
) -> None:
    """Fit when a picture is acted on and when it is asked about, and say what that promises: fitted on one half of the pictures,
    shown by the other, both ways round, of which the weaker counts. Nothing is changed where the pictures do not show what is to
    be promised."""
    if output is not None:
        make_directory(output.parent)  # before anything is measured, which may take an hour
    wanted = _Wanted(precision, unknown_rate, leave_one_out=leave_one_out, own_offsets=own_offsets)
    made = with_parts(lambda parts: _calibrate(parts, manifest, catalogue, deadline_ms / 1000, wanted, keep=output is None))
    if output is not None:
        document = made.thresholds.model_dump(mode="json")
        output.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print_json({"thresholds": made.thresholds, "wanted": wanted, "stored": output is None, "unusable": dict(made.unusable)})
    else:
        _show_calibration(made, wanted, output)
    _report_unusable(made.unusable)


@dataclass(frozen=True)
class _Wanted:
    precision: float
    unknown: float
    leave_one_out: bool
    own_offsets: bool

    @property
    def split(self) -> "SplitBy":
        """A product's own offset can only be shown to hold by other pictures of that product."""
        return "picture" if self.own_offsets else "product"


@dataclass(frozen=True)
class _Calibrated:
    thresholds: "Thresholds"
    shown: "Shown"
    fitted_on: int
    unusable: Sequence[tuple[str, str]]


async def _calibrate(
    parts: "Parts", manifest: Path, catalogue: str, time_s: float, wanted: _Wanted, *, keep: bool
) -> _Calibrated:
    from streams.catalogues.store import keep_calibration
    from streams.evaluation.manifests import read_manifest
    from streams.evaluation.running import running_models, snapshot_with_pictures

    async with running_models(parts) as models:
        snapshot, products = await snapshot_with_pictures(parts, models, catalogue)
        labelled = read_manifest(manifest, {product: known.gtin for product, known in products.items()})
        assert snapshot.name is not None
        answers, unusable = await _answers(parts, models, snapshot.name, labelled, time_s, wanted)
    if not answers:
        raise _nothing_usable(unusable)
    made = _fitted(answers, unusable, wanted, f"{manifest.name}, snapshot {snapshot.number} of {snapshot.merchant_id}")
    if keep:
        thresholds = made.thresholds.model_dump(mode="json")
        measured_on = {"manifest": manifest.name, "snapshot": snapshot.number, "pictures": len(labelled), "answers": len(answers)}
        async with parts.database().transaction() as connection:
            await keep_calibration(
                connection,
                snapshot.merchant_id,
                made.thresholds.matcher,
                thresholds=thresholds,
                measured_on=measured_on,
            )
    return made


async def _answers(
    parts: "Parts", models: "Models", snapshot: str, labelled: "Sequence[Labelled]", time_s: float, wanted: _Wanted
) -> "tuple[list[Answer], list[tuple[str, str]]]":
    from streams.core.settings import require
    from streams.evaluation.inspection import matched
    from streams.evaluation.leave_one_out import tidy, without
    from streams.evaluation.manifests import by_product

    answers: list[Answer] = []
    unusable: list[tuple[str, str]] = []
    groups = by_product(labelled) if wanted.leave_one_out else {}
    directory = require(parts.settings.catalogue_directory, "catalogue_directory") if groups else Path()

    count = len(labelled) + sum(len(group) for group in groups.values())

    with progress_bar(count) as show_progress:

        async def ask(each: "Labelled", name: str, *, left_out: bool = False) -> None:
            answer = await matched(models, each, name, time_s, left_out=left_out)
            if isinstance(answer, str):
                unusable.append((str(each.file), answer))
            else:
                answers.append(answer)
            show_progress(len(answers) + len(unusable), count)

        for each in labelled:
            await ask(each, snapshot)
        if groups:
            tidy(directory)
        for product, group in groups.items():
            with without(directory, snapshot, product) as rest:
                for each in group:
                    await ask(each, rest, left_out=True)
    return answers, unusable


def _fitted(
    answers: "Sequence[Answer]",
    unusable: Sequence[tuple[str, str]],
    wanted: _Wanted,
    measured_on: str,
) -> _Calibrated:
    """Raises Misconfigured where the pictures do not show what is to be promised."""
    from streams.evaluation.calibration import TooLittleShown, calibrated, weaker_half
    from streams.sightings import thresholds

    try:
        fitted = weaker_half(
            answers, wanted.split, precision=wanted.precision, unknown=wanted.unknown, offsets=wanted.own_offsets
        )
    except TooLittleShown as error:
        raise Misconfigured(
            f"Nothing is promised, and nothing was changed.\n{error}\nOnly one half of the pictures counts at a time: what it was"
            " fitted on shows nothing. More pictures show more; --precision and --unknown-rate ask for less."
        ) from error
    except ValueError as error:
        raise Misconfigured(
            f"Nothing is promised, and nothing was changed: {error}, in each half of the pictures. --leave-one-out asks of each"
            " picture without its product in the catalogue, too, which any answer is wrong for."
        ) from error
    base = thresholds.shipped()
    matchers = {answer.matcher for answer in answers}
    if len(matchers) > 1:
        raise Misconfigured(f"Several matchers answered ({', '.join(sorted(matchers))}). Calibrate again when there is one.")
    matcher = matchers.pop()
    made = calibrated(base, matcher, fitted, measured_on=measured_on)
    return _Calibrated(made, fitted.shown, len(fitted.fitted_on), unusable)


def _show_calibration(made: _Calibrated, wanted: _Wanted, output: Path | None) -> None:
    promise, shown = made.thresholds.promise, made.shown
    assert promise is not None
    print_table(
        f"Acting on pictures from a confidence of {made.thresholds.act:.4f}, asking from {made.thresholds.ask:.4f}",
        ("", "wanted", "shown", f"at least ({promise.level:.0%} certain)"),
        [
            ("precision", f"{wanted.precision:.3f}", str(shown.right), f"{shown.right.at_least:.3f}"),
            ("coverage", "", str(shown.covered), ""),
            (
                "nothing of the catalogue in view, not acted on",
                f"{wanted.unknown:.3f}",
                str(shown.unknown),
                f"{shown.unknown.at_least:.3f}" if shown.unknown.of else "",
            ),
        ],
    )
    calibration = made.thresholds.calibration
    typer.echo(
        f"log odds = {calibration.intercept:g} + {calibration.score:g} · score + {calibration.margin:g} · margin"
        + (f", and {len(calibration.offsets)} products' own offsets" if calibration.offsets else "")
    )
    typer.echo(
        f"fitted on {made.fitted_on} answers; shown by {promise.pictures} pictures of products and {promise.unknown_pictures} of"
        f" none, which share no {wanted.split} with them"
    )
    if not shown.unknown.of:
        typer.echo("Nothing is promised of pictures that show no product of the catalogue: none were given (--leave-one-out).")
    if output is not None:
        typer.echo(printable(f"written: {output}"))
    else:
        typer.echo("The catalogue's pictures are acted on by this from now on.")


@contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes JSON lines; nowhere, without a path."""
    if path is None:
        yield lambda line: None
        return
    with path.open("w", encoding="utf-8") as file:

        def write(line: Mapping[str, Any]) -> None:
            file.write(printable(json.dumps(line, ensure_ascii=False)) + "\n")

        yield write


def _nothing_usable(pictures: Sequence[tuple[str, str]]) -> Misconfigured:
    more = f"\n  and {len(pictures) - _REPORTED_AT_MOST} more" if len(pictures) > _REPORTED_AT_MOST else ""
    named = "".join(f"\n  {printable(file)}: {reason}" for file, reason in pictures[:_REPORTED_AT_MOST])
    return Misconfigured(f"No picture could be used, and nothing was measured:{named}{more}")


def _report_unusable(pictures: Sequence[tuple[str, str]]) -> None:
    """On standard error, so that a document on standard output stays one."""
    for file, reason in pictures[:_REPORTED_AT_MOST]:
        typer.echo(printable(f"not used: {file}: {reason}"), err=True)
    if len(pictures) > _REPORTED_AT_MOST:
        typer.echo(f"not used: {len(pictures) - _REPORTED_AT_MOST} more", err=True)
