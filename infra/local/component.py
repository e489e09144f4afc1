"""The one shape all parts of the embedded stack have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.local.layout import Layout
from streams.core.supervisor import ProcessSpec


class ComponentUnavailable(RuntimeError):
    """A part cannot be started on this machine as it is. The message says why and what to do."""


@dataclass(frozen=True)
class Address:
    """Where a person or a program reaches a part. `what` is in plain words."""

    component: str
    what: str
    address: str


class Component(Protocol):
    """A part of the stack. `ports` names the TCP ports it needs; they are assigned before `prepare`."""

    name: str
    ports: tuple[str, ...]

    async def prepare(self, layout: Layout, ports: dict[str, int]) -> None:
        """Makes everything ready for the first start: downloads, directories, configuration. Quick when done before.
        Raises `ComponentUnavailable`."""

    def spec(self) -> ProcessSpec:
        """The process to run. Called after `prepare`."""

    def environment(self) -> dict[str, str]:
        """The environment variables by which the platform finds this part. Called when the process is ready."""

    def addresses(self) -> list[Address]:
        """The same for people."""


def tail_of(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
