"""WeChat Pay, API v3, as a merchant of its own in mainland China. See README.md."""

from collections.abc import Mapping

from connectors.payments.wechat_pay.connector import WechatPayConnector
from connectors.payments.wechat_pay.credentials import load
from connectors.ports import PaymentConnector

__all__ = ["WechatPayConnector", "connect"]


def connect(credentials: Mapping[str, str], *, notify_url: str | None, strict: bool = True) -> PaymentConnector:
    """Raises Misconfigured where the credentials cannot be right. Without `strict` certificates may have expired since: WeChat
    Pay's verify nothing any more, and new ones are fetched."""
    return WechatPayConnector(load(credentials, strict=strict), notify_url=notify_url)
