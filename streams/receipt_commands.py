"""`augenblick receipts`: proving that nothing was altered or removed, and taking the proof elsewhere."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from schemas.errors import Misconfigured
from streams.command_line import JsonOption, counted, parse_id, print_json, with_parts

if TYPE_CHECKING:
    from streams.core.bootstrap import Parts
    from streams.core.database import Database
    from streams.core.receipt_files import Checkpoint
    from streams.core.receipts import Entry

app = typer.Typer(no_args_is_help=True, help="Receipts: the records of journeys that show whatever was done to them.")

JourneysArgument = Annotated[list[str] | None, typer.Argument(metavar="[JOURNEY]…", help="journeys, jrn_…")]
AllOption = Annotated[bool, typer.Option("--all", help="every journey there is")]
NewFileOption = Annotated[Path | None, typer.Option("--file", help="write it here, a new file; else to standard output")]


@dataclass
class _Result:
    """`problems`: each with the journey it is about, if it is about one."""

    receipts: int = 0
    entries: int = 0
    problems: list[tuple[str | None, str]] = field(default_factory=list)


@app.command("verify")
def verify(
    journeys: JourneysArgument = None,
    everything: AllOption = False,
    checkpoint: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="prove that all that was there then is there still")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="verify an export instead; needs no database")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that nothing was altered or removed. Exit status 1 where something was; each finding is a sentence."""
    from streams.core import receipt_files

    known = receipt_files.read_checkpoint(checkpoint) if checkpoint else None
    if file is not None:
        if journeys or everything:
            raise typer.BadParameter("an export is verified as a whole")
        result = _Result(*receipt_files.verify_export(file, known))
        result.problems += [(None, problem) for problem in (receipt_files.problems_of_checkpoint(known) if known else [])]
    else:
        # A checkpoint alone is about everything it knows.
        chosen = _chosen(journeys, everything=everything or (known is not None and not journeys))
        result = with_parts(lambda parts: _verify(parts.database(), chosen, known))
    if as_json:
        problems = [{"journey_id": journey, "problem": problem} for journey, problem in result.problems]
        print_json({"receipts": result.receipts, "entries": result.entries, "holds": not problems, "problems": problems})
    else:
        for journey, problem in result.problems:
            typer.echo(f"{journey}: {problem}" if journey else problem)
        looked_at = f"{counted(result.receipts, 'receipt')} with {result.entries} entries"
        count = len(result.problems)
        typer.echo(
            f"{looked_at}: {counted(count, 'finding')}."
            if count
            else f"{looked_at}: nothing was altered or removed{', nor since the checkpoint' if known else ''}."
        )
    raise typer.Exit(1 if result.problems else 0)


async def _verify(database: "Database", journeys: Sequence[str] | None, known: "Checkpoint | None") -> _Result:
    from streams.core import receipt_files
    from streams.payments import evidence

    result = _Result()
    with _progress("verifying") as tell:
        async for examined in evidence.examine(database, journeys):
            result.receipts += examined.journeys
            result.entries += examined.entries
            result.problems += examined.problems
            tell(result.receipts)
    if known is not None:
        result.problems += [(None, problem) for problem in receipt_files.problems_of_checkpoint(known)]
        with _progress("holding against the checkpoint") as tell:
            async for journey_id, problem in receipt_files.against_checkpoint(database, known, journeys):
                result.problems.append((journey_id, problem))
    return result


@app.command("export")
def export(journeys: JourneysArgument = None, everything: AllOption = False, file: NewFileOption = None) -> None:
    """Write receipts as JSON, with their digests and how to verify them without us."""
    from streams.core import receipt_files

    chosen = _chosen(journeys, everything=everything)

    async def work(parts: "Parts") -> int:
        with _out(file) as out:
            return await receipt_files.write_export(out, _stored(parts.database(), chosen), datetime.now(UTC))

    count = with_parts(work)
    if chosen is not None and count < len(chosen):
        raise Misconfigured(f"Only {count} of the {len(chosen)} journeys have a receipt.")
    if file:
        typer.echo(f"{counted(count, 'receipt')} in {file}")


async def _stored(database: "Database", journeys: Sequence[str] | None) -> AsyncIterator[tuple[str, "Sequence[Entry]"]]:
    from streams.core import receipts

    with _progress("exporting") as tell:
        count = 0
        async for some in receipts.in_order(database, journeys):
            for journey_id, entries in some.items():
                yield journey_id, entries
            count += len(some)
            tell(count)


@app.command("checkpoint")
def checkpoint(file: NewFileOption = None) -> None:
    """Write the last digest of every receipt. Keep it where whoever can change the database cannot, off this machine."""
    from streams.core import receipt_files, receipts

    async def work(parts: "Parts") -> tuple[int, str]:
        async with receipts.one_moment(parts.database()) as connection:
            with _out(file) as out:
                root = await receipt_files.write_checkpoint(out, receipts.heads(connection), datetime.now(UTC))
        return root.count, root.hexdigest()

    count, root = with_parts(work)
    if file:
        typer.echo(f"{count} receipts in {file}, root {root}")


def _chosen(journeys: list[str] | None, *, everything: bool) -> list[str] | None:
    """None for all."""
    from schemas.ids import JourneyId

    if everything == bool(journeys):
        raise typer.BadParameter("name journeys, or give --all")
    return [parse_id(JourneyId, journey) for journey in dict.fromkeys(journeys)] if journeys else None


@contextmanager
def _out(file: Path | None) -> Iterator[TextIO]:
    """What is half written is no evidence: it goes under another name first."""
    if file is None:
        yield sys.stdout
        return
    if file.exists():
        raise Misconfigured(f"{file} exists: choose another name, or remove it.")
    part = file.with_name(file.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as out:
            yield out
        part.rename(file)
    except OSError as error:
        raise Misconfigured(f"{file} cannot be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)


class _Tell:
    def __call__(self, count: int) -> None:
        """How many are done."""


@contextmanager
def _progress(what: str) -> Iterator[_Tell]:
    """On standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield _Tell()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed} receipts"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        class Show(_Tell):
            def __call__(self, count: int) -> None:
                progress.update(task, completed=count)

        yield Show()
