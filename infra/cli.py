"""The console script `augenblick`: the platform's own commands, and those that run it on one machine.

Everything heavy is imported inside the command that needs it, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli import app as platform_app
from streams.command_line import counted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from infra.local.state import StackState

app = typer.Typer(
    name="augenblick",
    help="Smart glasses commerce: a glance becomes an offer, an approval becomes a payment, and everyone hears of it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(platform_app)

RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Where data, logs and ports are kept. Default: AUGENBLICK_ROOT, else var/.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
ProviderOption = Annotated[
    str, typer.Option("--provider", help="Who takes the money: alipay, stripe or wechat_pay, of the sandbox.")
]


@app.callback()
def use_what_runs(context: typer.Context) -> None:
    """What is said here is not shown: the help is the application's own."""
    if context.invoked_subcommand not in _OWN_STACK:
        _use_running_stack()


# These start or look at a stack themselves; a role is given everything by whoever starts it.
_OWN_STACK = {"up", "down", "status", "doctor", "demo", "drill", "run", "prepare"}
_ADDRESSES = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "TRITON_URL")


def _use_running_stack() -> None:
    """Commands meet the stack that `augenblick up` (or `demo --keep`) runs here or in AUGENBLICK_ROOT, unless the environment
    names servers of one's own."""
    import os

    if any(name in os.environ for name in _ADDRESSES) or (Path(".env").exists() and not os.environ.get("AUGENBLICK_ROOT")):
        return
    from infra.local.stack import default_root
    from infra.local.state import running_environment

    root = default_root()
    for name, value in (running_environment(root) or running_environment(root / "demo") or {}).items():
        os.environ.setdefault(name, value)


@app.command()
def up(
    root: RootOption = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Start only these parts, comma-separated: kafka, postgres, triton, zipkin. No roles."),
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C ends everything.")] = False,
) -> None:
    """Start the embedded stack and the platform, and wait until all of it is ready."""
    from infra.local.control import UpFailed, end_process, start_daemon, wait_until_down, wait_until_up
    from infra.local.layout import Layout
    from infra.local.stack import COMPONENTS, default_root
    from infra.local.state import read_state

    root = root or default_root()
    components = _components(only, COMPONENTS)
    console = _console()
    wait_until_down(root)
    state = read_state(Layout(root).run)
    if state is not None and state.daemon_is_alive and state.phase == "ready":
        console.print(_address_table(state))
        console.print(f"Running already (pid {state.pid}). `augenblick down` ends it.")
        if troubled := [process.name for process in state.processes if process.state not in ("ready", "completed")]:
            console.print(f"Not ready: {', '.join(troubled)}. `augenblick doctor` says why.")
        return
    if foreground:
        raise typer.Exit(_run_in_foreground(root, components, with_platform=only is None))

    already_starting = state is not None and state.daemon_is_alive and state.phase == "starting"
    pid = state.pid if state and already_starting else start_daemon(root, components, with_platform=only is None)
    try:
        with console.status("starting") as spinner:
            state = wait_until_up(root, pid, lambda state: spinner.update(_progress(state)))
    except UpFailed as error:
        _error(f"{error}\nMore: `augenblick doctor`, and the logs in {Layout(root).logs}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        end_process(pid)
        _error("Interrupted; everything that was started has been ended.")
        raise typer.Exit(130) from None
    _print_started(console, state)


@app.command()
def down(root: RootOption = None) -> None:
    """End the platform and the embedded stack. Data is kept."""
    from infra.local.control import shut_down
    from infra.local.stack import default_root

    console = _console()
    with console.status("stopping"):
        done = shut_down(root or default_root())
    for line in done or ["Nothing is running."]:
        console.print(line[0].upper() + line[1:])


@app.command()
def status(root: RootOption = None, as_json: JsonOption = False) -> None:
    """Show what runs. Exit status 1 when something that should run does not."""
    from infra.local.doctor import silent_models
    from infra.local.layout import Layout
    from infra.local.stack import default_root
    from infra.local.state import read_state

    layout = Layout(root or default_root())
    state = read_state(layout.run)
    alive = state is not None and state.daemon_is_alive
    silent = silent_models(layout)
    healthy = (
        state is not None
        and alive
        and state.phase == "ready"
        and all(process.state in ("ready", "completed") for process in state.processes)
        and not silent
    )
    if as_json:
        document = state.model_dump() if state is not None and alive else {"phase": "down"}
        sys.stdout.write(json.dumps({**document, "silent_models": silent, "healthy": healthy}, indent=2) + "\n")
    elif state is None or not alive:
        _console().print("Not running. `augenblick up` starts it.")
    else:
        console = _console()
        console.print(f"{state.phase.capitalize()}, supervised by pid {state.pid}.")
        console.print(_process_table(state))
        if state.addresses:
            console.print(_address_table(state))
        for note in state.notes:
            console.print(f"Note: {note}")
        if silent:
            console.print(f"Models that do not serve: {', '.join(silent)}. `augenblick doctor` says why.")
    raise typer.Exit(0 if healthy else 1)


@app.command()
def doctor(root: RootOption = None, as_json: JsonOption = False) -> None:
    """Examine everything the stack needs, and say what to do about each problem. Exit status 1 when something needed is wrong."""
    from infra.local.doctor import examine
    from infra.local.stack import default_root

    findings = examine(root or default_root())
    problems = sum(finding.verdict == "problem" for finding in findings)
    if as_json:
        sys.stdout.write(json.dumps({"problems": problems, "findings": [vars(finding) for finding in findings]}, indent=2) + "\n")
    else:
        colours = {"ok": "green", "note": "yellow", "problem": "red"}
        table = _table("", "what", "found", "what to do")
        for finding in findings:
            table.add_row(finding.verdict, finding.subject, finding.detail, finding.remedy, style=colours[finding.verdict])
        console = _console()
        console.print(table)
        console.print(f"{counted(problems, 'problem')}." if problems else "Nothing needed is wrong.")
    raise typer.Exit(1 if problems else 0)


@app.command()
def demo(
    root: RootOption = None,
    as_json: JsonOption = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    provider: ProviderOption = "alipay",
) -> None:
    """One glance, all the way: recorded sessions on real components, and a table of every journey, hop by hop."""
    import asyncio
    import time

    from infra.local.stack import default_root
    from infra.sandbox import report
    from infra.sandbox.demo import Demo

    began = time.monotonic()
    console = _console()
    progress = _console(stderr=True)

    async def show() -> None:
        with progress.status("") as spinner:

            def tell(what: str) -> None:
                spinner.update(what)
                if not progress.is_terminal:
                    progress.print(f"{time.monotonic() - began:5.1f} s  {what}")

            async with Demo(root or default_root() / "demo", tell, _provider(provider)) as running:
                shown = await running.run()
                seconds = time.monotonic() - began
                if as_json:
                    sys.stdout.write(json.dumps(report.document(shown, seconds), indent=2, ensure_ascii=False) + "\n")
                    sys.stdout.flush()
                else:
                    spinner.stop()
                    report.print_table(console, shown, seconds)
                if keep:
                    for what, address in shown.addresses.items():
                        progress.print(f"{what:32} {address}")
                    progress.print("Everything stays up until Ctrl-C.")
                    await asyncio.Event().wait()

    _run_until_signalled(show())


@app.command()
def drill(
    payments: Annotated[int, typer.Option("--payments", min=1, help="How many payments wearers shall make.")] = 200,
    kills: Annotated[int, typer.Option("--kills", min=0, help="How often a random role is killed meanwhile.")] = 20,
    faults: Annotated[
        float,
        typer.Option("--faults", min=0.0, max=1.0, help="What share of the provider's answers is faulty: lost, wrong, late."),
    ] = 0.0,
    kafka_restarts: Annotated[int, typer.Option("--kafka-restarts", min=0, help="How often Kafka is killed meanwhile.")] = 0,
    postgres_restarts: Annotated[int, typer.Option("--postgres-restarts", min=0, help="How often PostgreSQL is killed.")] = 0,
    provider: ProviderOption = "alipay",
    devices: Annotated[int, typer.Option("--devices", min=1, help="How many wearers pay at the same time.")] = 8,
    seed: Annotated[int | None, typer.Option("--seed", help="Repeat the choices of an earlier drill.")] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Where to keep everything. Default: a new directory.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Pay and give back while roles, Kafka and PostgreSQL are killed and the provider has its worst day, then compare four books
    to the minor unit. Exit status 1 if anything is lost, doubled, unknown or different."""
    import time
    from secrets import randbelow

    from infra.sandbox import drill as drills
    from infra.sandbox import drill_report

    began = time.monotonic()
    progress = _console(stderr=True)
    plan = drills.Plan(
        payments=payments,
        kills=kills,
        seed=randbelow(10**6) if seed is None else seed,
        devices=devices,
        provider=_provider(provider),
        faults=faults,
        kafka_restarts=kafka_restarts,
        postgres_restarts=postgres_restarts,
    )

    async def show() -> None:
        with progress.status("") as spinner:

            def tell(what: str) -> None:
                spinner.update(what)
                if not progress.is_terminal:
                    progress.print(f"{time.monotonic() - began:5.1f} s  {what}")

            report = await drills.run(plan, root, tell)
        if as_json:
            sys.stdout.write(json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n")
        else:
            drill_report.print_tables(_console(), report)
        if not report.ok:
            raise typer.Exit(1)

    _run_until_signalled(show())


def main() -> None:
    """Errors that are meant for the user are shown as a sentence, without a stack."""
    from dotenv import load_dotenv

    from infra.local.component import ComponentUnavailable
    from infra.local.stack import StackRunning
    from schemas.errors import AugenblickError
    from streams.core.supervisor import ProcessFailed

    try:
        load_dotenv(Path(".env"), override=False)  # for every command alike: what starts the servers, and what uses them
        app()
    except KeyboardInterrupt:
        _error("Interrupted.")
        sys.exit(130)
    except (AugenblickError, ComponentUnavailable, StackRunning, ProcessFailed) as error:
        _error(str(error))
        sys.exit(1)
    except Exception as error:
        from aiokafka.errors import KafkaError

        from streams.core.database import has_no_tables, is_unavailable

        if is_unavailable(error):
            _error("PostgreSQL does not answer at the address in DATABASE_URL: start it, or correct the address.")
        elif has_no_tables(error):
            _error("The database in DATABASE_URL has not all of the tables: `augenblick migrate` makes them.")
        elif isinstance(error, KafkaError):
            _error("Kafka does not answer at the address in KAFKA_BOOTSTRAP_SERVERS: start it, or correct the address.")
        else:
            raise
        sys.exit(1)


def _run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Ctrl-C and SIGTERM cancel the work, which then ends what it started."""
    import asyncio
    import signal

    async def run() -> int | None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        received: list[int] = []

        def stop(number: int) -> None:
            if not received:
                task.cancel()
            received.append(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        try:
            await task
        except asyncio.CancelledError:
            if not received:
                raise
        return received[0] if received else None

    if (number := asyncio.run(run())) is not None:
        _error("Interrupted; everything that was started has been ended.")
        raise typer.Exit(128 + number)


def _provider(name: str) -> str:
    from infra.sandbox.providers import NAMES

    if name not in NAMES:
        _error(f"--provider: there is no {name} in the sandbox. Choose from {', '.join(NAMES)}.")
        raise typer.Exit(2)
    return name


def _components(only: str | None, known: tuple[str, ...]) -> list[str]:
    if only is None:
        return list(known)
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        _error(f"--only: unknown part {', '.join(unknown) or '(none given)'}. Choose from {', '.join(known)}.")
        raise typer.Exit(2)
    return names


def _run_in_foreground(root: Path, components: list[str], *, with_platform: bool) -> int:
    import asyncio
    import logging

    from infra.local.daemon import Daemon

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    daemon = Daemon(root, components, with_platform, on_ready=lambda state: _print_started(_console(), state))
    return asyncio.run(daemon.run())


def _print_started(console: Console, state: StackState) -> None:
    console.print(_address_table(state))
    for note in state.notes:
        console.print(f"Note: {note}")
    console.print("Ready. `augenblick status` shows what runs, `augenblick down` ends it.")


def _progress(state: StackState) -> str:
    waiting = [process.name for process in state.processes if process.state not in ("ready", "completed")]
    return f"starting: waiting for {', '.join(waiting)}" if waiting else "starting"


def _address_table(state: StackState) -> Table:
    table = _table("part", "what", "address")
    for address in state.addresses:
        table.add_row(address.component, address.what, address.address)
    return table


def _process_table(state: StackState) -> Table:
    from infra.local.control import memory_bytes

    table = _table("process", "state", "pid", "memory", "restarts", "since", "log")
    for process in state.processes:
        memory = memory_bytes(process.pid)
        table.add_row(
            process.name,
            process.state,
            str(process.pid or ""),
            f"{memory / 1e6:.0f} MB" if memory else "",
            str(process.restarts),
            _time_of_day(process.since),
            process.log_file,
            style="red" if process.state == "failed" else None,
        )
    return table


def _time_of_day(moment: str) -> str:
    """ISO 8601 to this machine's own time, with the day only where it is not today."""
    from datetime import datetime

    local = datetime.fromisoformat(moment).astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        # A cut address or path is of no use.
        table.add_column(column, overflow="fold")
    return table


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    # A file or a pipe has no width of its own; the default of 80 would break every address.
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def _error(text: str) -> None:
    sys.stderr.write("\n".join(map(printable, text.rstrip().split("\n"))) + "\n")


if __name__ == "__main__":
    main()
