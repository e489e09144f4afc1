"""What Stripe's error and decline codes mean for a payment. Pure.

Sources, read 2026-11: Stripe's pages "Error codes" (https://docs.stripe.com/error-codes), "Stripe decline codes"
(https://docs.stripe.com/declines/codes) and "Refunds" (failure reasons), and the codes of API version 2026-10-28 as its SDK 16.1
types them. Listed is what confirming, capturing, cancelling and refunding a PaymentIntent, and opening one, can meet; codes about
accounts, payouts, invoices, terminals and the like are left out on purpose. A code that is not here is not guessed at.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """DECLINED: the payer's bank, their wallet or Stripe's risk rules said no. REFUSED: the request itself is not accepted.
    PAYER_MUST_ACT: not without the payer, who was not asked. NOT_NOW: it says nothing about the payment; ask later."""

    DECLINED = "declined"
    REFUSED = "refused"
    PAYER_MUST_ACT = "payer_must_act"
    NOT_NOW = "not_now"


_DECLINED = """
account_closed authentication_failure bank_account_declined bank_account_restricted bank_account_unusable card_declined
card_decline_rate_limit_exceeded debit_not_authorized expired_card expired_payment_method incorrect_address incorrect_cvc
incorrect_number incorrect_postal_code incorrect_zip india_recurring_payment_mandate_canceled insufficient_funds invalid_card_type
invalid_cvc invalid_expiry_month invalid_expiry_year invalid_number no_account payment_intent_authentication_failure
payment_intent_mandate_invalid payment_intent_payment_attempt_expired payment_intent_payment_attempt_failed
payment_method_bank_account_blocked payment_method_customer_decline payment_method_not_available payment_method_provider_decline
payment_method_provider_timeout payment_method_restricted postal_code_invalid processing_error refer_to_customer
three_d_secure_authentication_not_supported three_d_secure_authentication_upstream_error
"""
_REFUSED = """
account_invalid amount_too_large amount_too_small balance_insufficient balance_invalid_parameter capability_not_active
capture_charge_authorization_expired capture_unauthorized_payment charge_already_captured charge_already_refunded charge_disputed
charge_exceeds_source_limit charge_exceeds_transaction_limit charge_expired_for_capture charge_invalid_parameter
charge_not_refundable country_unsupported intent_invalid_state invalid_characters invalid_charge_amount invalid_source_usage
livemode_mismatch missing parameter_invalid_empty parameter_invalid_integer parameter_invalid_string_blank
parameter_invalid_string_empty parameter_missing parameter_unknown parameters_exclusive payment_intent_incompatible_payment_method
payment_intent_invalid_parameter payment_intent_unexpected_state payment_method_billing_details_address_missing
payment_method_configuration_failures payment_method_currency_mismatch payment_method_invalid_parameter
payment_method_invalid_parameter_testmode payment_method_unactivated payment_method_unexpected_state
payment_method_unsupported_type platform_account_required refund_disputed_payment resource_already_exists resource_missing
return_intent_already_processed state_unsupported status_transition_invalid testmode_charges_only tls_version_unsupported
token_already_used token_in_use url_invalid
"""
_PAYER_MUST_ACT = "authentication_required payment_intent_action_required"
_NOT_NOW = "idempotency_key_in_use lock_timeout payment_intent_rate_limit_exceeded rate_limit"

ERROR_CODES: Mapping[str, Verdict] = {
    code: verdict
    for codes, verdict in (
        (_DECLINED, Verdict.DECLINED),
        (_REFUSED, Verdict.REFUSED),
        (_PAYER_MUST_ACT, Verdict.PAYER_MUST_ACT),
        (_NOT_NOW, Verdict.NOT_NOW),
    )
    for code in codes.split()
}

_CARD_DECLINES = """
approve_with_id call_issuer card_not_supported card_velocity_exceeded currency_not_supported do_not_honor do_not_try_again
duplicate_transaction expired_card fraudulent generic_decline incorrect_address incorrect_cvc incorrect_number incorrect_pin
incorrect_zip insufficient_funds invalid_account invalid_amount invalid_cvc invalid_expiry_month invalid_expiry_year
invalid_number invalid_pin issuer_not_available lost_card merchant_blacklist mobile_device_authentication_required
new_account_information_available no_action_taken not_permitted offline_pin_required online_or_offline_pin_required pickup_card
pin_try_exceeded processing_error reenter_transaction restricted_card revocation_of_all_authorizations revocation_of_authorization
security_violation service_not_allowed stolen_card stop_payment_order testmode_decline transaction_not_allowed try_again_later
withdrawal_count_limit_exceeded
"""
# Of wallets and other means that are not cards.
_OTHER_DECLINES = """
compliance_violation expired_payment_information invalid_authorization invalid_billing_agreement invalid_business_account
invalid_customer_account invalid_payment_information partner_generic_decline partner_high_risk_customer partner_payment_not_found
payment_disputed payment_limit_exceeded
"""
# Payments that Stripe itself blocks before the bank is asked.
_BLOCKED = "highest_risk_level live_mode_test_card previously_declined_do_not_retry rule"
# The bank wants to hear from the payer. The same asked of a card reader or of a phone held to one cannot be helped by a link.
_AUTHENTICATE = "authentication_not_handled authentication_required"

DECLINE_CODES: Mapping[str, Verdict] = {
    **{code: Verdict.DECLINED for codes in (_CARD_DECLINES, _OTHER_DECLINES, _BLOCKED) for code in codes.split()},
    **dict.fromkeys(_AUTHENTICATE.split(), Verdict.PAYER_MUST_ACT),
}

REFUND_FAILURES = frozenset(
    {
        "charge_for_pending_refund_disputed",
        "declined",
        "expired_or_canceled_card",
        "insufficient_funds",
        "lost_or_stolen_card",
        "merchant_request",
        "unknown",
    }
)

# An error without a code is one of these types: a request that cannot be right, or a key used for another request.
_TYPES_WITHOUT_CODE = frozenset({"invalid_request_error", "idempotency_error"})


def verdict(error: Mapping[str, Any]) -> Verdict | None:
    """Of an error object of Stripe's: an answer's `error`, or a PaymentIntent's `last_payment_error`. None: not documented."""
    code, reason = error.get("code"), error.get("decline_code")
    if code is None:
        return Verdict.REFUSED if str(error.get("type")) in _TYPES_WITHOUT_CODE else None
    if code == "card_declined" and reason is not None:
        return DECLINE_CODES.get(str(reason))
    return ERROR_CODES.get(str(code))
