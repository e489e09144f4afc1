"""The platform's commands. `infra.cli` puts them together with those of the local stack."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

import typer

from streams import catalogue_commands as catalogue
from streams import evaluation_commands as evaluation
from streams import money_commands as money
from streams import provisioning_commands as provisioning
from streams import recognition_commands as recognition

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(provisioning.app)
catalogue.app.add_typer(evaluation.app)
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(recognition.app)
app.add_typer(money.app)


@app.command()
def run(
    role: Annotated[str, typer.Argument(help="gateway, sightings, offers, intents, payments, …; see `augenblick roles`")],
) -> None:
    """Run one role of the platform in this process, until it is told to stop."""
    from streams import roles
    from streams.core.bootstrap import composed
    from streams.core.settings import load
    from streams.core.telemetry.setup import telemetry

    settings = load()
    try:
        work = roles.find(role)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0])) from error
    _log_to_stderr()

    async def work_until_stopped() -> None:
        async with composed(settings) as parts:
            await work(parts)

    with telemetry(settings, role):
        _spare_the_collector()
        _run_until_signalled(work_until_stopped)


@app.command()
def roles() -> None:
    """List the roles, in the order of the flow."""
    from rich.console import Console
    from rich.table import Table

    from streams.core.topology import STAGES

    table = Table("stage", "roles", "reads", "writes", "what it does", box=None, header_style="bold")
    for stage in STAGES:
        table.add_row(
            stage.name,
            ", ".join(stage.roles),
            "\n".join(topic.name for topic in stage.consumes),
            "\n".join(topic.name for topic in stage.emits),
            stage.summary,
        )
    Console().print(table)


@app.command()
def migrate(revision: Annotated[str, typer.Argument(help="a revision, or `base` to take everything down")] = "head") -> None:
    """Bring the database to a revision: the newest, unless another is named."""
    from streams.core.migrate import move_to
    from streams.core.settings import load, require

    move_to(require(load().database_url, "database_url").get_secret_value(), revision)
    typer.echo(f"the database is at revision {revision}")


@app.command()
def prepare(
    create_topics: Annotated[bool, typer.Option("--topics/--no-topics", help="also create the Kafka topics")] = True,
) -> None:
    """Do what must be done once before the roles run: migrate the database, create the topics."""
    migrate("head")
    if create_topics:
        topics(lag=False)


@app.command()
def topics(lag: Annotated[bool, typer.Option(help="show how far each consumer is behind")] = False) -> None:
    """Create the Kafka topics that are missing, or show the consumers' lag."""
    from streams.core import topics as administration
    from streams.core.settings import load, require
    from streams.core.topology import STAGES

    servers = require(load().kafka_bootstrap_servers, "kafka_bootstrap_servers")
    if lag:
        groups = {stage.name: stage.consumes for stage in STAGES if stage.consumes and stage.name != "gateway"}
        for entry in administration.lag(servers, groups):
            typer.echo(f"{entry.group:12} {entry.topic}/{entry.partition}: {entry.behind}")
        return
    created = administration.ensure(servers)
    typer.echo(f"created {', '.join(created)}" if created else "all topics are there")


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("aiokafka", "faust", "mode", "httpx", "stripe"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _spare_the_collector() -> None:
    """What is loaded by now stays; events leave few cycles behind. To look for them less often saves a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _run_until_signalled(work: Callable[[], Awaitable[None]]) -> None:
    """SIGTERM and Ctrl-C end the work gracefully, with exit status 0; a second one at once."""
    import uvloop

    async def main() -> None:
        task = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        with suppress(asyncio.CancelledError):
            await task

    uvloop.run(main())
