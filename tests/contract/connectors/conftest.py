"""A localstripe process for the contract tests: the provider's side is not ours."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from infra.sandbox import alipay, localstripe, wechat_pay
from tests.support.peers import free_port, running


@pytest.fixture(scope="session")
def stripe_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = localstripe.address(port := free_port())
    with running(localstripe.argv(port), lambda: localstripe.is_ready(address), tmp_path_factory.mktemp("localstripe") / "log"):
        yield address


@pytest.fixture(scope="session")
def wechat_pay_address() -> Iterator[str]:
    """The sandbox's gateway: ours, but written apart from the connector, and driven by an SDK that is not ours, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(wechat_pay.argv(port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        address = wechat_pay.address(port)
        deadline = time.monotonic() + 30
        while not asyncio.run(wechat_pay.is_ready(address)):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"The WeChat Pay sandbox did not start: {process.communicate()[1].decode()[-2000:]}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="session")
def alipay_address() -> Iterator[str]:
    """The sandbox's gateway: ours, but npm's alipay-sdk drives it, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(alipay.argv(port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        address = alipay.address(port)
        deadline = time.monotonic() + 30
        while not asyncio.run(alipay.is_ready(address)):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"The Alipay sandbox did not start: {process.communicate()[1].decode()[-2000:]}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=10)
