"""Alipay: agreements, codes shown to a camera, and codes shown to a phone. See README.md."""

from collections.abc import Mapping

from connectors.payments.alipay.connector import AlipayConnector
from connectors.payments.alipay.credentials import read
from connectors.ports import PaymentConnector

__all__ = ["AlipayConnector", "connect"]


def connect(credentials: Mapping[str, str], *, notify_url: str | None, strict: bool = True) -> PaymentConnector:
    """Raises Misconfigured where the credentials cannot be right; calls nobody. `strict` changes nothing: Alipay renews no
    certificate by itself, so that one which has expired is the merchant's to replace."""
    return AlipayConnector(read(credentials), notify_url=notify_url)
