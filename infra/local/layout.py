"""Where the embedded stack keeps its files."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

INFRA = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The directory that holds `var/` and `.venv-triton/`: AUGENBLICK_HOME, else the checkout this file belongs to, else here."""
    configured = os.environ.get("AUGENBLICK_HOME")
    if configured:
        return Path(configured).resolve()
    checkout = INFRA.parent
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def cache() -> Path:
    """Downloads. Shared by all stacks of one checkout, whatever their roots; safe to delete while nothing runs."""
    return home() / "var" / "cache"


@dataclass(frozen=True)
class Layout:
    """The files of one stack. Two stacks with different roots do not know of each other."""

    root: Path

    @cached_property
    def data(self) -> Path:
        return self._directory("data")

    @cached_property
    def logs(self) -> Path:
        return self._directory("log")

    @cached_property
    def run(self) -> Path:
        return self._directory("run")

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _directory(self, name: str) -> Path:
        path = self.root.resolve() / name
        path.mkdir(parents=True, exist_ok=True)
        return path
