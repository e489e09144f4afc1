"""`augenblick recognise`: what the glasses would say of pictures from files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import Misconfigured
from schemas.recognition import Intent
from streams.command_line import printable, progress_bar, with_parts

if TYPE_CHECKING:
    from streams.core.bootstrap import Parts
    from streams.evaluation.inspection import Inspected

app = typer.Typer(no_args_is_help=True)

DeadlineOption = Annotated[int, typer.Option(min=1, max=600_000, help="how long a picture may take; glasses wait about 1500")]

_FILE_WIDTH = 40


@app.command("recognise")
def recognise(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="pictures (JPEG, PNG, WebP), or folders of them")],
    catalogue: Annotated[
        str | None,
        typer.Option("--catalogue", help="one merchant's: its id, mer_…, or its name. Default: all, where there is a database"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line per picture")] = False,
    explain: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIRECTORY", help="write each picture there, with what was seen in it")
    ] = None,
    intent: Annotated[Intent, typer.Option(help="what is wanted of the pictures")] = Intent.PRICE,
    deadline_ms: DeadlineOption = 5000,
    region: Annotated[
        str | None, typer.Option(help="where the pictures were taken, ISO 3166: DE. Prices and shops' own codes depend on it")
    ] = None,
) -> None:
    """Say of each picture what the glasses would say: codes, price, product, how surely, and how long it took. Exit status 1
    where a picture could not be read."""
    if region is not None and not (len(region) == 2 and region.isascii() and region.isalpha()):
        raise typer.BadParameter("a region has two letters, as in ISO 3166: DE")
    where = region.upper() if region else None
    if explain is not None:
        make_directory(explain)
    if not with_parts(
        lambda parts: _recognise(parts, paths, catalogue, intent, deadline_ms / 1000, where, explain=explain, as_json=as_json)
    ):
        raise typer.Exit(1)


async def _recognise(
    parts: "Parts",
    paths: Sequence[Path],
    catalogue: str | None,
    intent: Intent,
    time_s: float,
    region: str | None,
    *,
    explain: Path | None,
    as_json: bool,
) -> bool:
    """Whether every picture could be read."""
    from streams.evaluation.inspection import inspect, line_of
    from streams.evaluation.picture_files import pictures_in
    from streams.evaluation.running import recogniser_for, running_models

    files = list(pictures_in(paths))
    if not files:
        raise Misconfigured("There are no pictures there: .jpg, .jpeg, .png and .webp are looked for.")
    width = min(max(len(printable(str(file))) for file in files), _FILE_WIDTH)
    readable = True
    async with running_models(parts) as models:
        recogniser = await recogniser_for(parts, models, catalogue)
        with progress_bar(len(files), among_lines=True) as show_progress:
            for number, file in enumerate(files, 1):
                inspected = await inspect(recogniser, file, intent, time_s, region=region, explain=explain is not None)
                readable = readable and inspected.error is None
                if explain is not None and inspected.look is not None:
                    _write_explanation(inspected, explain, number, len(files))
                line = json.dumps(line_of(inspected), ensure_ascii=False) if as_json else _readable(inspected, width)
                _write_line(line)
                show_progress(number, len(files))
    return readable


def _write_line(text: str) -> None:
    """Whole, so that whoever stops the command, or reads along, never has half of one."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def _readable(inspected: "Inspected", width: int) -> str:
    """One picture on one line: file, decision, confidence, product or why there is none, what codes and price tag say, time."""
    from streams.evaluation.explanation import parts_of, said_of
    from streams.evaluation.inspection import in_words, line_of, named

    line, look = line_of(inspected), inspected.look
    file = printable(line["file"])
    file = file if len(file) <= width else "…" + file[1 - width :]
    if look is None:
        return f"{file:<{width}}  {'error':<10}  {'':<5}  {line['error']}"
    product = line["product"]
    said = [named(product)] if product else [" or ".join(map(named, line["choices"]))] if line["choices"] else []
    if not said and line["reason"]:
        said.append(in_words(line["reason"]))
    if look.seen.price_tag:
        said.append(", ".join(parts_of(look.seen.price_tag)))
    told = dict.fromkeys(part for code in look.seen.codes for part in said_of(code))
    said += [part for part in told if not (product and part == product.get("gtin"))]
    if line["late_models"] or line["failed_models"]:
        said.append(f"without {', '.join([*line['late_models'], *line['failed_models']])}")
    confidence = f"{line['confidence']:.3f}" if line["confidence"] is not None else ""
    return f"{file:<{width}}  {in_words(line['decision']):<10}  {confidence:<5}  {' · '.join(said)}  {line['ms']['all']:.0f} ms"


def _write_explanation(inspected: "Inspected", directory: Path, number: int, of: int) -> None:
    """Numbered, for pictures in several folders may have one name."""
    from streams.evaluation.explanation import annotated
    from streams.evaluation.inspection import explained

    path = directory / f"{number:0{len(str(of))}d}-{inspected.file.stem}.jpg"
    annotated(explained(inspected)).save(path, "JPEG", quality=90)


def make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be made: {error.strerror}.") from error
