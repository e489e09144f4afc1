"""The payment providers of the sandbox, each a process with books of its own. Their modules offer the same functions."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from schemas.payments import Payer, StatementLine

Kind = Literal["ok", "declined", "needs_action"]
NAMES = ("alipay", "stripe", "wechat_pay")
DEFAULT = "alipay"

_MODULES = {"alipay": "infra.sandbox.alipay", "stripe": "infra.sandbox.localstripe", "wechat_pay": "infra.sandbox.wechat_pay"}


class SandboxProvider(Protocol):
    """`address` arguments are what `address(port)` returned."""

    TITLE: str
    """What it is, for people."""

    CURRENCY: str | None
    """The only currency it takes, or None for any."""

    HAS_FAULTS: bool
    """Whether it goes wrong on demand by itself; before one that does not stands a proxy (infra/sandbox/proxy.py)."""

    def argv(self, port: int, *, books: Path | None = None) -> list[str]:
        """With `books`, a file, it goes on where it ended, if it can."""
        ...

    def address(self, port: int) -> str: ...

    async def is_ready(self, address: str) -> bool: ...

    def credentials(self, address: str) -> Mapping[str, str]:
        """Of the one account it has, as `augenblick connectors add` takes them."""
        ...

    async def seed_payer(self, address: str, kind: Kind = "ok") -> Payer:
        """A payer whose means of payment is accepted, declined, or asks the payer to act first."""
        ...

    async def listen(self, address: str, urls: Sequence[str]) -> None:
        """Where notifications are to go, for a provider that has to be told so beforehand."""
        ...

    async def confirm(self, address: str, reference: str, success: bool = True) -> None:
        """The payer acts on the phone."""
        ...

    async def moved(self, address: str) -> list[StatementLine]:
        """All that ever moved by its own books, first to last: straight from memory, not through what a connector reads."""
        ...

    async def set_faults(self, address: str, **faults: Any) -> None:
        """See infra/sandbox/faults.py."""
        ...


def find(name: str) -> SandboxProvider:
    return cast(SandboxProvider, import_module(_MODULES[name]))
