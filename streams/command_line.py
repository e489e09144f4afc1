"""What commands share: running on the platform's parts, explaining refusals, and showing tables or JSON."""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from unicodedata import category

import typer
from pydantic import BaseModel

from schemas.errors import Misconfigured, Rejected

if TYPE_CHECKING:
    from rich.console import Console

    from schemas.money import Money
    from streams.core.bootstrap import Parts

AnyId = TypeVar("AnyId", bound=str)
Result = TypeVar("Result")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def with_parts(work: Callable[["Parts"], Awaitable[Result]]) -> Result:
    """Run it on what the settings name. A refusal becomes a sentence (Misconfigured), with every field it is about."""
    from streams.core.bootstrap import composed
    from streams.core.settings import load

    # Whoever types a command is told how it ended; that a call was made twice until then is for the logs of those that serve.
    logging.getLogger("stamina").setLevel(logging.ERROR)

    async def go() -> Result:
        async with composed(load()) as parts:
            return await work(parts)

    try:
        return asyncio.run(go())
    except Rejected as refusal:
        raise Misconfigured(explained(refusal)) from refusal


def explained(refusal: Rejected) -> str:
    details = [error for error in refusal.problem.errors if error.detail not in refusal.problem.detail]
    fields = "".join(f"\n  {error.pointer} {error.detail}" for error in details)
    return f"{refusal.problem.title}: {refusal.problem.detail}{fields}"


def parse_id(kind: type[AnyId], text: str) -> AnyId:
    try:
        return kind(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def printable(text: str) -> str:
    """On one line, and without anything that a terminal obeys: names of files and texts of codes are whatever somebody made them.
    It is escaped as in JSON, so that JSON still means the same."""
    return "".join(each if each.isprintable() or category(each) == "Zs" else json.dumps(each)[1:-1] for each in text)


def print_json(document: Any) -> None:
    lines = json.dumps(document, default=_plain, indent=2, ensure_ascii=False).split("\n")
    sys.stdout.write("\n".join(map(printable, lines)) + "\n")


def _plain(value: object) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"a {type(value).__qualname__} is not shown")


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str | None]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        # A cut id is of no use; the first is what is copied.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(escape(cell or "") for cell in row))
    console().print(table)


def console() -> "Console":
    from rich.console import Console

    made = Console(highlight=False)
    # A file or a pipe has no width of its own; the default of 80 would break every id.
    return made if made.is_terminal else Console(highlight=False, width=400)


@contextmanager
def progress_bar(of: int = 0, *, among_lines: bool = False) -> Iterator[Callable[[int, int], None]]:
    """How many pictures are done, of how many: shown as soon as it is known of how many. On standard error, where that is a
    terminal. `among_lines`: a line is written for each picture, which is enough where they go to a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    errors = Console(stderr=True)
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not errors.is_terminal or (among_lines and console().is_terminal)
    with Progress(*columns, console=errors, transient=True, disable=hidden, redirect_stdout=False) as bar:
        task = bar.add_task("pictures", total=of or None, visible=of > 0)

        def show(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, visible=of > 0)

        yield show


def counted(count: int, what: str) -> str:
    """1 snapshot, 2 snapshots. `what` is one of them, and takes an s."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def moment(at: datetime | None) -> str:
    """UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if at else ""


def amount(money: "Money | None") -> str:
    return str(money) if money else ""
