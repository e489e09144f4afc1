"""Processes of the providers' side for the contract tests."""

from collections.abc import Iterator

import pytest

from infra.local.ports import new_port
from infra.sandbox import alipay, localstripe, wechat_pay
from tests.support.peers import running


@pytest.fixture(scope="session")
def stripe_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = localstripe.address(port := new_port())
    with running(localstripe.argv(port), lambda: localstripe.is_ready(address), tmp_path_factory.mktemp("localstripe") / "log"):
        yield address


@pytest.fixture(scope="session")
def wechat_pay_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The sandbox's gateway: ours, but written apart from the connector, and driven by an SDK that is not ours, too."""
    address = wechat_pay.address(port := new_port())
    with running(wechat_pay.argv(port), lambda: wechat_pay.is_ready(address), tmp_path_factory.mktemp("wechat_pay") / "log"):
        yield address


@pytest.fixture(scope="session")
def alipay_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The sandbox's gateway: ours, but npm's alipay-sdk drives it, too."""
    address = alipay.address(port := new_port())
    with running(alipay.argv(port), lambda: alipay.is_ready(address), tmp_path_factory.mktemp("alipay") / "log"):
        yield address
