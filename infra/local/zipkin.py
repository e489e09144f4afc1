"""Zipkin: keeps the traces of the last hour or so in memory, and shows them."""

import dataclasses
import shutil
import signal
import tempfile
from pathlib import Path

from infra.local.checks import http_answers
from infra.local.component import Address
from infra.local.java import JavaProgram, unpack_spring_boot
from infra.local.layout import INFRA, Layout
from infra.local.ports import LOOPBACK, choose_ports
from streams.core.supervisor import ProcessSpec

PROGRAM = JavaProgram("zipkin", INFRA / "zipkin", unpack_spring_boot)
LEFT_OUT_NOTE = (
    "Zipkin is left out, so traces are not kept. {problem}; or set OTEL_EXPORTER_OTLP_ENDPOINT to a collector of yours."
)


class Zipkin:
    name = "zipkin"
    ports: tuple[str, ...] = ("zipkin",)

    async def prepare(self, layout: Layout, ports: dict[str, int]) -> None:
        await PROGRAM.fetch()
        await _archive_classes()
        self._log_file = layout.log_file(self.name)
        self._temporary = layout.run / "zipkin"
        self._port = ports["zipkin"]

    def spec(self) -> ProcessSpec:
        return _server(self._port, self._log_file, self._temporary)

    def environment(self) -> dict[str, str]:
        base = f"http://{LOOPBACK}:{self._port}"
        return {
            "OTEL_TRACES_EXPORTER": "zipkin",
            "OTEL_EXPORTER_ZIPKIN_ENDPOINT": f"{base}/api/v2/spans",
            "ZIPKIN_URL": f"{base}/zipkin/",
        }

    def addresses(self) -> list[Address]:
        return [Address(self.name, "Zipkin, traces in the browser", self.environment()["ZIPKIN_URL"])]


def _server(port: int, log_file: Path, temporary: Path, *flags: str) -> ProcessSpec:
    def clear_temporary_files() -> None:
        # It unpacks libraries there and, being killed, does not clear them away.
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()

    # Spring Boot replaces a list as a whole: naming the address alone would lose the port and the protocol.
    listen = {"address": LOOPBACK, "port": port, "protocols[0]": "http"}
    options = [f"--armeria.ports[0].{name}={value}" for name, value in listen.items()]
    java = PROGRAM.java("-Xms32m", "-Xmx192m", "-Xss512k", f"-Djava.io.tmpdir={temporary}", *flags)
    return ProcessSpec(
        name="zipkin",
        argv=[*java, "zipkin.server.ZipkinServer", *options],
        log_file=log_file,
        environment={"STORAGE_TYPE": "mem", "MEM_MAX_SPANS": "200000", "SELF_TRACING_ENABLED": "false"},
        ready=lambda: http_answers(f"http://{LOOPBACK}:{port}/health"),
        ready_timeout_seconds=180,
        before_start=clear_temporary_files,
        # It has nothing to write down, and would wait two seconds for requests to end.
        stop_signal=signal.SIGKILL,
        remedy="Run `augenblick doctor`. Without Zipkin: `augenblick up --only kafka,postgres,triton`.",
    )


async def _archive_classes() -> None:
    if PROGRAM.classes_are_archived:
        return
    with tempfile.TemporaryDirectory(prefix="augenblick-zipkin-") as temporary:
        directory = Path(temporary)
        port = choose_ports(["zipkin"], directory / "ports.json")["zipkin"]
        training = _server(port, directory / "log", directory / "java", PROGRAM.archive_flag())
        await PROGRAM.archive_classes(dataclasses.replace(training, stop_signal=signal.SIGTERM, stop_timeout_seconds=60))
