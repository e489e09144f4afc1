"""Stripe: cards saved with a customer. See README.md."""

from collections.abc import Mapping

from pydantic import Field, SecretStr

from connectors.credentials import Credentials, parse
from connectors.payments.stripe.connector import StripeConnector
from schemas.errors import Misconfigured

__all__ = ["StripeConnector", "StripeCredentials", "connect"]


class StripeCredentials(Credentials):
    """What `augenblick connectors add stripe` takes. The connector says what each is for and checks its form."""

    api_key: SecretStr
    webhook_secret: SecretStr | None = None
    account: str | None = Field(default=None, max_length=200)
    return_url: str | None = Field(default=None, max_length=2000)
    address: str | None = Field(default=None, max_length=2000, pattern="^https?://[^\\s/?#]+/?$")


def connect(credentials: Mapping[str, str], *, notify_url: str | None = None, strict: bool = True) -> StripeConnector:
    """`notify_url` is not used: Stripe is told in its dashboard, where the webhook's secret comes from. Without `strict` an
    account that was added before `account` was demanded still works. Raises Misconfigured."""
    given = parse(StripeCredentials, "stripe", credentials)
    api_key = given.api_key.get_secret_value()
    if given.address is not None and "_live_" in api_key:
        raise Misconfigured("A live key of Stripe's is never sent to another `address`: leave that out, or give a test key.")
    if strict and given.account is None and given.address is None:
        # Without it nobody would notice a key of another account, which knows nothing of the payments that were made.
        raise Misconfigured("Stripe's `account` is missing: give the account's id, acct_…, from the dashboard's settings.")
    return StripeConnector(
        api_key,
        webhook_secret=given.webhook_secret.get_secret_value() if given.webhook_secret is not None else None,
        account=given.account,
        return_url=given.return_url,
        address=given.address,
    )
