"""The merchant's receiver as a supervised process, and what it got."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from infra.local.layout import Layout
from infra.local.ports import LOOPBACK, choose_ports
from streams.core.supervisor import ProcessSpec

NAME = "merchant-receiver"


class Receiver:
    """`infra.sandbox.merchant` in a process. The secrets are written once the merchants have them."""

    def __init__(self, layout: Layout) -> None:
        self._port = choose_ports([NAME], layout.run / "ports.json")[NAME]
        self._secrets: Path = layout.run / "webhook.secrets"
        self._record: Path = layout.run / "webhooks.jsonl"
        self._log = layout.log_file(NAME)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}/webhooks"

    def spec(self) -> ProcessSpec:
        """Begins with an empty record."""
        self._record.unlink(missing_ok=True)
        self._secrets.touch(mode=0o600)
        arguments = {"port": self._port, "secret-file": self._secrets, "record": self._record}
        return ProcessSpec(
            name=NAME,
            argv=[
                *(sys.executable, "-m", "infra.sandbox.merchant"),
                *(part for name, value in arguments.items() for part in (f"--{name}", str(value))),
            ],
            log_file=self._log,
            ready=partial(_answers, self._port),
        )

    def trust(self, secrets: list[str]) -> None:
        """The `whsec_` secrets its messages are signed with."""
        self._secrets.write_text("\n".join(secrets))

    async def received(self) -> list[dict[str, Any]]:
        """Every message, verified or refused, first to last."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://{LOOPBACK}:{self._port}/received")
        return list(answer.raise_for_status().json())


async def _answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            return (await client.get(f"http://{LOOPBACK}:{port}/received")).status_code == 200
    except httpx.TransportError:
        return False
