"""WeChat Pay, API v3, as a merchant of its own in mainland China. See README.md."""

from collections.abc import Mapping

from connectors.payments.wechat_pay.connector import WechatPayConnector
from connectors.payments.wechat_pay.credentials import load
from connectors.ports import PaymentConnector

__all__ = ["WechatPayConnector", "connect"]


def connect(credentials: Mapping[str, str], *, notify_url: str | None) -> PaymentConnector:
    """Raises Misconfigured where the credentials cannot be right."""
    return WechatPayConnector(load(credentials), notify_url=notify_url)
