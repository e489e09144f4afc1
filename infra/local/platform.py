"""The platform's own processes in the local stack: what is prepared once, then one process per role; and beside them the payment
providers of the sandbox. Merchants are connected with those, or with real accounts, by `augenblick connectors add`."""

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
from infra.sandbox import providers as sandbox
from streams.core.supervisor import ProcessSpec, RestartPolicy
from streams.core.topology import ROLES

# Roles crash on purpose when they cannot go on; only one that dies again and again is a fault.
_RESTART = RestartPolicy(maximum_restarts=30, window_seconds=60)

# All roles start at once, and each has much to import: on two cores that others use as well, that takes a while.
_READY_WITHIN_S = 180.0


def process_name(provider: str) -> str:
    """Of a sandbox provider."""
    return f"{provider.replace('_', '-')}-sandbox"


@dataclass(frozen=True)
class Platform:
    """Where everything is, and with which settings. `settings` wins over what is chosen here. `providers` are those of the
    sandbox that run beside it."""

    layout: Layout
    stack: Mapping[str, str]
    settings: Mapping[str, str]
    ports: Mapping[str, int]
    providers: Sequence[str]

    @classmethod
    def plan(
        cls, layout: Layout, stack: Mapping[str, str], settings: Mapping[str, str], providers: Sequence[str] = sandbox.NAMES
    ) -> "Platform":
        ports = choose_ports(["gateway", "console", *map(process_name, providers)], layout.run / "ports.json")
        return cls(layout, stack, settings, ports, providers)

    @property
    def environment(self) -> dict[str, str]:
        """Every role's environment; what is configured outside wins."""
        chosen = {
            "AUGENBLICK_SECRET_KEY": _kept_key(self.layout.run / "secret.key"),
            "AUGENBLICK_GATEWAY_PORT": str(self.ports["gateway"]),
            "AUGENBLICK_CONSOLE_PORT": str(self.ports["console"]),
            "AUGENBLICK_PUBLIC_URL": f"http://{LOOPBACK}:{self.ports['gateway']}",
            "AUGENBLICK_ALLOW_PRIVATE_ENDPOINTS": "true",
        }
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

    def provider_address(self, provider: str) -> str:
        return sandbox.find(provider).address(self.ports[process_name(provider)])

    def addresses(self) -> list[Address]:
        found = [
            Address("gateway", "glasses (WebSocket)", f"ws://{self.gateway_address}/v1/glasses"),
            Address("gateway", "makers and merchants (HTTP)", f"http://{self.gateway_address}/v1"),
            Address("console", "operators' page", self.console_address),
        ]
        found += [Address("sandbox", sandbox.find(name).TITLE, self.provider_address(name)) for name in self.providers]
        return found

    def specs(self, *, with_topics: bool, after: Sequence[str] = ()) -> list[ProcessSpec]:
        """`with_topics` is False for a broker that makes topics by itself and cannot be administered. `after` names the
        processes that the roles need: these start before them, and end after them."""
        specs = [self._preparation(with_topics=with_topics, after=after)]
        return specs + [self._provider(name) for name in self.providers] + [self._role(role) for role in ROLES]

    def _provider(self, provider: str) -> ProcessSpec:
        name, module = process_name(provider), sandbox.find(provider)
        return ProcessSpec(
            name=name,
            # What merchants and payers have with it outlives it, as the database does that knows them.
            argv=module.argv(self.ports[name], books=self.layout.data / f"{name}.books"),
            log_file=self.layout.log_file(name),
            ready=partial(_answers, module, self.provider_address(provider)),
            remedy="It comes with the extra `local`: `make setup`.",
        )

    def _preparation(self, *, with_topics: bool, after: Sequence[str]) -> ProcessSpec:
        return ProcessSpec(
            name="prepare",
            argv=[sys.executable, "-m", "infra.cli", "prepare", *([] if with_topics else ["--no-topics"])],
            log_file=self.layout.log_file("prepare"),
            environment=self.environment,
            runs_to_completion=True,
            depends_on=after,
            ready_timeout_seconds=_READY_WITHIN_S,
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
            ready_timeout_seconds=_READY_WITHIN_S,
            restart=_RESTART,
            depends_on=("prepare",),
        )


async def _answers(provider: sandbox.SandboxProvider, address: str) -> bool:
    return await provider.is_ready(address)


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
