"""The embedded stack as a whole. Used by `augenblick up`, the demo, the drill and the tests."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local import kafka, zipkin
from infra.local.component import Address, Component
from infra.local.kafka import InMemoryKafka, Kafka
from infra.local.layout import Layout, home
from infra.local.lock import Locked, file_lock
from infra.local.platform import Platform
from infra.local.ports import choose_ports
from infra.local.postgres import Postgres
from infra.local.state import read_state
from infra.local.triton import Triton
from infra.local.zipkin import Zipkin
from infra.sandbox.providers import NAMES as PROVIDERS
from streams.core.supervisor import ProcessEvent, ProcessSpec, Supervisor, log_event

COMPONENTS = ("kafka", "postgres", "triton", "zipkin")

# The variables that name a server of the user's own. If any of them is set, the embedded part is not started.
CONFIGURED_BY = {
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS",),
    "postgres": ("DATABASE_URL",),
    "triton": ("TRITON_URL",),
    "zipkin": ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_ZIPKIN_ENDPOINT"),
}


class StackRunning(RuntimeError):
    """Another process runs the stack in this directory already."""


def default_root() -> Path:
    """AUGENBLICK_ROOT, else `var/`: for what starts a stack and for what looks for one."""
    chosen = os.environ.get("AUGENBLICK_ROOT")
    return Path(chosen) if chosen else home() / "var"


class LocalStack:
    """Runs the embedded parts for the length of an `async with` block.

    `root` holds data, logs and ports. `configured` is where addresses of the user's own servers are looked up; the process's
    environment by default. After entering, `environment` names every server, embedded or not, and `notes` says in words what is
    not as in production. `supervisor` stops, starts and kills single processes, and takes further ones.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        components: Collection[str] = COMPONENTS,
        configured: Mapping[str, str] | None = None,
        on_event: Callable[[ProcessEvent], None] = log_event,
    ) -> None:
        unknown = sorted(set(components) - set(COMPONENTS))
        if unknown:
            raise ValueError(f"unknown component: {', '.join(unknown)}; choose from {', '.join(COMPONENTS)}")
        self.layout = Layout(root or default_root())
        self.supervisor = Supervisor(on_event)
        self.notes: list[str] = []
        self._platform: Platform | None = None
        # False as long as somebody else may be running a stack there.
        self.directory_was_ours = False
        self._configured = os.environ if configured is None else configured
        self._names = [name for name in COMPONENTS if name in components]
        self._given: dict[str, str] = {}
        self._components: list[Component] = []
        self._held = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._held.enter_context(self._only_one())
            self.directory_was_ours = True
            self._components = list(self._choose())
            names = [port for component in self._components for port in component.ports]
            ports = choose_ports(names, self.layout.run / "ports.json")
            await self._start(ports)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._leave()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for the platform's processes. An in-memory Kafka's address changes with its every start."""
        if self._platform is not None:
            return self._platform.environment
        environment = dict(self._given)
        for component in self._components:
            environment.update(component.environment())
        # Without a collector an exporter would only fill the logs with errors.
        environment.setdefault("OTEL_TRACES_EXPORTER", self._configured.get("OTEL_TRACES_EXPORTER", "none"))
        return environment

    @property
    def addresses(self) -> list[Address]:
        own = self._platform.addresses() if self._platform else []
        own += [address for component in self._components for address in component.addresses()]
        given = [
            Address(name, f"yours, from {variable}", without_password(self._given[variable]))
            for name, variables in CONFIGURED_BY.items()
            for variable in variables
            if variable in self._given
        ]
        return own + given

    async def start_platform(
        self, *beside: ProcessSpec, settings: Mapping[str, str] | None = None, providers: Sequence[str] = PROVIDERS
    ) -> Platform:
        """Runs the migrations, creates the topics and starts every role; and the processes `beside` it at the same time.
        `settings` are environment variables for the roles, which win over everything else; `providers` those of the sandbox."""
        self._platform = Platform.plan(self.layout, self.environment, settings or {}, providers)
        in_memory = any(isinstance(component, InMemoryKafka) for component in self._components)
        parts = [process.name for process in self.supervisor.processes()]
        await self.supervisor.start([*self._platform.specs(with_topics=not in_memory, after=parts), *beside])
        return self._platform

    def _choose(self) -> Iterator[Component]:
        for name in self._names:
            given = {variable: self._configured[variable] for variable in CONFIGURED_BY[name] if self._configured.get(variable)}
            if given:
                self._given.update(given)
                if name == "zipkin":
                    exporter = "otlp" if "OTEL_EXPORTER_OTLP_ENDPOINT" in given else "zipkin"
                    self._given["OTEL_TRACES_EXPORTER"] = self._configured.get("OTEL_TRACES_EXPORTER", exporter)
            elif name == "kafka":
                problem = kafka.PROGRAM.problem()
                if problem:
                    self.notes.append(kafka.IN_MEMORY_NOTE.format(remedy=problem))
                yield InMemoryKafka() if problem else Kafka()
            elif name == "postgres":
                yield Postgres()
            elif name == "triton":
                yield Triton(configured=self._configured, note=self.notes.append)
            elif problem := zipkin.PROGRAM.problem():
                self.notes.append(zipkin.LEFT_OUT_NOTE.format(problem=problem))
            else:
                yield Zipkin()

    async def _start(self, ports: dict[str, int]) -> None:
        async def start(component: Component) -> None:
            await component.prepare(self.layout, {name: ports[name] for name in component.ports})
            await self.supervisor.start([component.spec()])

        tasks = [asyncio.create_task(start(component)) for component in self._components]
        try:
            for finished in asyncio.as_completed(tasks):
                await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        try:
            await self.supervisor.stop()
        finally:
            self._held.close()

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        try:
            with file_lock(self.layout.run / "stack.lock", wait_seconds=0):
                yield
        except Locked:
            state = read_state(self.layout.run)
            who = f"`augenblick up` (pid {state.pid})" if state and state.daemon_is_alive else "another process"
            raise StackRunning(
                f"The stack in {self.layout.root} is run by {who} already. Use that one, end it (`augenblick down`), or choose "
                "another directory"
            ) from None


def without_password(address: str) -> str:
    """A URL as it may be shown."""
    head, at, tail = address.rpartition("@")
    scheme, separator, credentials = head.partition("://")
    return f"{scheme}{separator}{credentials.partition(':')[0]}@{tail}" if at and separator else address
