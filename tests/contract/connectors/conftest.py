"""A localstripe process for the contract tests: the provider's side is not ours."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from infra.sandbox import localstripe


@pytest.fixture(scope="session")
def stripe_address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(localstripe.argv(port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        address = localstripe.address(port)
        deadline = time.monotonic() + 30
        while not asyncio.run(localstripe.is_ready(address)):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"localstripe did not start: {process.communicate()[1].decode()[-2000:]}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=10)
