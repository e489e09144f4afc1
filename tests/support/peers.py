"""The other side of a connector: other people's servers, each a process of its own on this machine, and one that says what a test
wants to hear."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from infra.sandbox import proxy
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


def installed(path: str) -> Path:
    """Where `make peers` put it. Fails where it is not: a test that is skipped tests nothing."""
    found = ROOT / path
    if not found.exists():
        pytest.fail(f"{path} is not installed: `make peers` does it.")
    return found


@contextmanager
def running(argv: Sequence[str], is_ready: Callable[[], Awaitable[bool]], log: Path, **options: str | Path) -> Iterator[None]:
    """The process, once it is ready, until the end of the block. What it says goes to `log`."""
    with log.open("w") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
        try:
            deadline = time.monotonic() + 120
            while not asyncio.run(is_ready()):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{argv[0]} did not start: {log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def let_late_effects_happen(address: str) -> None:
    """Those that a faulty gateway of the sandbox has kept back; done when this returns. So `late_s` may be long, and on a slow
    machine none comes too early."""
    await proxy.set_faults(address, late_s=[0, 0])

    async def none_to_come() -> bool:
        return (await proxy.read_faults(address))["to_come"] == 0

    await eventually(none_to_come, what="the late effect")


Form = Mapping[str, str]
Answer = Callable[[web.Request, Form], Awaitable[web.Response]]


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[str]:
    """A server that answers every request so; the form is what was posted."""

    async def talk(request: web.Request) -> web.Response:
        return await answer(request, {name: str(value) for name, value in (await request.post()).items()})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", talk)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
