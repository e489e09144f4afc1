"""Stripe: cards saved with a customer. See README.md."""

from connectors.payments.stripe.connector import StripeConnector

__all__ = ["StripeConnector"]
