"""The platform's own processes in the local stack: what is prepared once, then one process per role; and localstripe as the
payment provider, unless a real account is configured."""

import base64
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infra.local.component import Address
from infra.local.layout import Layout
from infra.local.ports import LOOPBACK, choose_ports
from infra.sandbox import localstripe
from streams.core.supervisor import ProcessSpec, RestartPolicy
from streams.core.topology import ROLES

# Roles crash on purpose when they cannot go on; only one that dies again and again is a fault.
_RESTART = RestartPolicy(maximum_restarts=30, window_seconds=60)

PROVIDER = "stripe-sandbox"
SANDBOX_NOTE = (
    "Payments go to localstripe, a stand-in for Stripe on this machine. Set AUGENBLICK_STRIPE_API_KEY for a real account."
)


@dataclass(frozen=True)
class Platform:
    """Where everything is, and with which settings. `settings` wins over what is chosen here."""

    layout: Layout
    stack: Mapping[str, str]
    settings: Mapping[str, str]
    ports: Mapping[str, int]

    @classmethod
    def plan(cls, layout: Layout, stack: Mapping[str, str], settings: Mapping[str, str]) -> "Platform":
        ports = choose_ports(["gateway", "console", "provider"], layout.run / "ports.json")
        return cls(layout, stack, settings, ports)

    @property
    def uses_sandbox_provider(self) -> bool:
        return "AUGENBLICK_STRIPE_API_KEY" not in {**os.environ, **self.settings}

    @property
    def environment(self) -> dict[str, str]:
        """Every role's environment; what is configured outside wins."""
        chosen = {
            "AUGENBLICK_SECRET_KEY": _kept_key(self.layout.run / "secret.key"),
            "AUGENBLICK_GATEWAY_PORT": str(self.ports["gateway"]),
            "AUGENBLICK_CONSOLE_PORT": str(self.ports["console"]),
            "AUGENBLICK_ALLOW_PRIVATE_ENDPOINTS": "true",
        }
        if self.uses_sandbox_provider:
            chosen["AUGENBLICK_STRIPE_API_KEY"] = localstripe.API_KEY
            chosen["AUGENBLICK_STRIPE_API_BASE"] = self.provider_address
        if "ZIPKIN_URL" in self.stack:
            chosen["AUGENBLICK_TRACE_PAGE"] = self.stack["ZIPKIN_URL"] + "traces/{trace_id}"
        outside = {name: os.environ[name] for name in chosen if name in os.environ}
        return {**self.stack, **chosen, **outside, **self.settings}

    @property
    def gateway_address(self) -> str:
        return f"{LOOPBACK}:{self.environment['AUGENBLICK_GATEWAY_PORT']}"

    @property
    def console_address(self) -> str:
        return f"http://{LOOPBACK}:{self.environment['AUGENBLICK_CONSOLE_PORT']}"

    @property
    def provider_address(self) -> str:
        return localstripe.address(self.ports["provider"])

    def addresses(self) -> list[Address]:
        found = [
            Address("gateway", "glasses (WebSocket)", f"ws://{self.gateway_address}/v1/glasses"),
            Address("gateway", "makers and merchants (HTTP)", f"http://{self.gateway_address}/v1"),
            Address("console", "operators' page", self.console_address),
        ]
        if self.uses_sandbox_provider:
            found.append(Address("provider", "localstripe", self.provider_address))
        return found

    def specs(self, *, with_topics: bool, after: Sequence[str] = ()) -> list[ProcessSpec]:
        """`with_topics` is False for a broker that makes topics by itself and cannot be administered. `after` names the
        processes that the roles need: these start before them, and end after them."""
        specs = [self._preparation(with_topics=with_topics, after=after)]
        if self.uses_sandbox_provider:
            specs.append(
                ProcessSpec(
                    name=PROVIDER,
                    argv=localstripe.argv(self.ports["provider"]),
                    log_file=self.layout.log_file(PROVIDER),
                    ready=partial(localstripe.is_ready, self.provider_address),
                    remedy="It comes with the extra `local`: `make setup`.",
                )
            )
        return specs + [self._role(role) for role in ROLES]

    def _preparation(self, *, with_topics: bool, after: Sequence[str]) -> ProcessSpec:
        return ProcessSpec(
            name="prepare",
            argv=[sys.executable, "-m", "infra.cli", "prepare", *([] if with_topics else ["--no-topics"])],
            log_file=self.layout.log_file("prepare"),
            environment=self.environment,
            runs_to_completion=True,
            depends_on=after,
            ready_timeout_seconds=60,
        )

    def _role(self, role: str) -> ProcessSpec:
        ready_file = self.layout.run / "ready" / role
        ready_file.parent.mkdir(exist_ok=True)
        return ProcessSpec(
            name=role,
            argv=[sys.executable, "-m", "infra.cli", "run", role],
            log_file=self.layout.log_file(role),
            environment={**self.environment, "AUGENBLICK_READY_FILE": str(ready_file)},
            before_start=partial(ready_file.unlink, missing_ok=True),
            ready=partial(_exists, ready_file),
            ready_timeout_seconds=60,
            restart=_RESTART,
            depends_on=("prepare",),
        )


async def _exists(path: Path) -> bool:
    return path.exists()  # noqa: ASYNC240 (a look at a local directory takes microseconds)


def _kept_key(path: Path) -> str:
    """The key that seals secrets in this stack's database; made once."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        unfinished.replace(path)
    return path.read_text()
