"""What Alipay's error codes mean for the money. Every code that Alipay documents for a call is listed; any other is UNKNOWN.

Source: the error models of Alipay's OpenAPI document of 2026-09-23 (`*ErrorResponseModel.java` and `CommonErrorType.java` below
`v3/src/main/java/com/alipay/v3/model` in github.com/alipay/alipay-sdk-java-all, read 2026-11). Gateway v1 has the same codes as
`sub_code`; there the common ones begin with `isv.`, `isp.` or `aop.`, which is taken off.
"""

from enum import StrEnum


class Verdict(StrEnum):
    DECLINED = "declined"  # by the payer's wallet, bank or agreement; nothing moved
    REFUSED = "refused"  # the request, the merchant's account or its contract is wrong; nothing moved
    ASK = "ask"  # the trade is already there in some state: it says what has become of it
    NOT_FOUND = "not_found"  # Alipay knows no such trade
    BUSY = "busy"  # nothing was done: too many requests at once
    UNKNOWN = "unknown"  # it may have been done


class Call(StrEnum):
    """Alipay's names."""

    PAY = "alipay.trade.pay"
    PRECREATE = "alipay.trade.precreate"
    QUERY = "alipay.trade.query"
    CANCEL = "alipay.trade.cancel"
    REFUND = "alipay.trade.refund"
    REFUND_QUERY = "alipay.trade.fastpay.refund.query"
    BILL = "alipay.data.dataservice.bill.downloadurl.query"


def verdict(call: Call, code: str) -> Verdict:
    plain = _without_origin(code)
    # v1 writes the bill's codes small.
    return _BY_CALL[call].get(plain.upper() if call is Call.BILL else code) or _COMMON.get(plain, Verdict.UNKNOWN)


def documented(call: Call) -> frozenset[str]:
    """The codes of its own that a call has a verdict for."""
    return frozenset(_BY_CALL[call])


def is_about_credentials(code: str) -> bool:
    """Whether the code says that the app, its key or its certificate is not accepted."""
    return _without_origin(code) in _CREDENTIALS


def _without_origin(code: str) -> str:
    origin, _, rest = code.partition(".")
    return rest if origin in {"isv", "isp", "aop"} else code


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _table(**groups: str) -> dict[str, Verdict]:
    return {code: Verdict[group] for group, codes in groups.items() for code in codes.split()}


def _acquiring(**groups: str) -> dict[str, Verdict]:
    return {f"ACQ.{code}": meaning for code, meaning in _table(**groups).items()}


_PAY = _acquiring(
    UNKNOWN="SYSTEM_ERROR",
    ASK="TRADE_HAS_SUCCESS TRADE_HAS_CLOSE CONTEXT_INCONSISTENT TRADE_BUYER_NOT_MATCH TRADE_STATUS_ERROR TRADE_SETTLE_ERROR",
    DECLINED="""
        BUYER_BANKCARD_INVALID BUYER_BANKCARD_DECLINED PAYMENT_AUTH_CODE_INVALID BUYER_BALANCE_NOT_ENOUGH
        BUYER_BANKCARD_BALANCE_NOT_ENOUGH ERROR_BALANCE_PAYMENT_DISABLE BUYER_SELLER_EQUAL BUYER_ENABLE_STATUS_FORBID
        PULL_MOBILE_CASHIER_FAIL MOBILE_PAYMENT_SWITCH_OFF PAYMENT_FAIL BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR
        BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR ERROR_BUYER_CERTIFY_LEVEL_LIMIT PAYMENT_REQUEST_HAS_RISK
        NO_PAYMENT_INSTRUMENTS_AVAILABLE USER_FACE_PAYMENT_SWITCH_OFF AGREEMENT_NOT_EXIST AGREEMENT_INVALID
        AGREEMENT_STATUS_NOT_NORMAL AGREEMENT_ERROR CARD_USER_NOT_MATCH CARD_TYPE_ERROR BUYER_UNSUPPORT_ADVANCE
        CYCLE_PAY_DATE_NOT_MATCH CYCLE_PAY_SINGLE_FEE_EXCEED CYCLE_PAY_TOTAL_FEE_EXCEED CYCLE_PAY_TOTAL_TIMES_EXCEED AUTH_NO_ERROR
        BUYER_NOT_EXIST AUTH_AMOUNT_NOT_ENOUGH PAYER_UNMATCHED NOT_SUPPORT_PAYMENT_INST BUYER_NOT_MAINLAND_CERT
        AUTH_TOKEN_IS_NOT_EXIST NOT_CERTIFIED_USER USER_LOGONID_DUP AUTH_ORDER_NOT_PAID AUTH_ORDER_HAS_FINISHED
        AUTH_ORDER_HAS_CLOSED ZM_AUTH_AMOUNT_EXCEED ZM_CREDIT_AUTH_FAIL ZM_AUTH_RULE_LIMIT OVER_MAX_DEDUCT_COUNT
        OVER_MAX_UNDER_WAY_DEDUCT_COUNT OVER_DEDUCT_PERIOD BUYER_LIMIT_EXCEEDED
    """,
    REFUSED="""
        INVALID_PARAMETER ACCESS_FORBIDDEN EXIST_FORBIDDEN_WORD PARTNER_ERROR TOTAL_FEE_EXCEED BEYOND_PAY_RESTRICTION
        BEYOND_PER_RECEIPT_RESTRICTION SELLER_BEEN_BLOCKED INVALID_STORE_ID SUB_MERCHANT_CREATE_FAIL SUB_MERCHANT_TYPE_INVALID
        MERCHANT_AGREEMENT_NOT_EXIST MERCHANT_AGREEMENT_INVALID MERCHANT_STATUS_NOT_NORMAL CERT_EXPIRED AMOUNT_OR_CURRENCY_ERROR
        CURRENCY_NOT_SUPPORT MERCHANT_UNSUPPORT_ADVANCE ORDER_UNSUPPORT_ADVANCE SECONDARY_MERCHANT_STATUS_ERROR
        PRODUCT_AMOUNT_LIMIT_ERROR SECONDARY_MERCHANT_ALIPAY_ACCOUNT_INVALID INVALID_RECEIVE_ACCOUNT SELLER_NOT_EXIST
        BEYOND_PER_RECEIPT_SINGLE_RESTRICTION PRE_AUTH_PROD_CODE_INCONSISTENT SECONDARY_MERCHANT_ID_INVALID
        NOW_TIME_AFTER_EXPIRE_TIME_ERROR SECONDARY_MERCHANT_NOT_MATCH REQUEST_AMOUNT_EXCEED SUB_GOODS_SIZE_MAX_COUNT
        SECONDARY_MERCHANT_ID_BLANK SMILE_PAY_MERCHANT_NOT_MATCH SECONDARY_MERCHANT_ISV_PUNISH_INDIRECT
        RESTRICTED_MERCHANT_INDUSTRY PLATFORM_BUSINESS_ACQUIRE_MODE_MUST_MERCHANT_ID BEYOND_PER_RECEIPT_DAY_RESTRICTION
        MERCHANT_PERM_RECEIPT_SUSPEND_LIMIT MERCHANT_PERM_RECEIPT_SINGLE_LIMIT MERCHANT_PERM_RECEIPT_DAY_LIMIT
        ROYALTY_ACCOUNT_NOT_EXIST RISK_MERCHANT_IP_NOT_EXIST UN_SUPPORT_TRADE_SCENE OVER_MERCHANT_DAILY_DEDUCT_AMOUNT
    """,
)

_PRECREATE = _acquiring(
    UNKNOWN="SYSTEM_ERROR",
    ASK="TRADE_HAS_SUCCESS TRADE_HAS_CLOSE CONTEXT_INCONSISTENT TRADE_BUYER_NOT_MATCH TRADE_SETTLE_ERROR",
    DECLINED="""
        BUYER_SELLER_EQUAL BUYER_ENABLE_STATUS_FORBID BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR
        ERROR_BUYER_CERTIFY_LEVEL_LIMIT BUYER_NOT_EXIST
    """,
    REFUSED="""
        INVALID_PARAMETER ACCESS_FORBIDDEN EXIST_FORBIDDEN_WORD PARTNER_ERROR TOTAL_FEE_EXCEED BEYOND_PAY_RESTRICTION
        BEYOND_PER_RECEIPT_RESTRICTION SELLER_BEEN_BLOCKED INVALID_STORE_ID APPLY_PC_MERCHANT_CODE_ERROR
        SECONDARY_MERCHANT_STATUS_ERROR BEYOND_PER_RECEIPT_DAY_RESTRICTION BEYOND_PER_RECEIPT_SINGLE_RESTRICTION
        SECONDARY_MERCHANT_ID_INVALID SECONDARY_MERCHANT_ISV_PUNISH_INDIRECT SELLER_NOT_EXIST
        SECONDARY_MERCHANT_ALIPAY_ACCOUNT_INVALID INVALID_RECEIVE_ACCOUNT SECONDARY_MERCHANT_ID_BLANK
        NOW_TIME_AFTER_EXPIRE_TIME_ERROR SECONDARY_MERCHANT_NOT_MATCH SUB_GOODS_SIZE_MAX_COUNT DEFAULT_SETTLE_RULE_NOT_EXIST
        MERCHANT_PERM_RECEIPT_SUSPEND_LIMIT MERCHANT_PERM_RECEIPT_SINGLE_LIMIT MERCHANT_PERM_RECEIPT_DAY_LIMIT
        RISK_MERCHANT_IP_NOT_EXIST MERCHANT_STATUS_NOT_NORMAL
    """,
)

# Refused, too, a question says nothing about the trade.
_QUERY = _acquiring(UNKNOWN="SYSTEM_ERROR INVALID_PARAMETER ENTERPRISE_PAY_BIZ_ERROR", NOT_FOUND="TRADE_NOT_EXIST")

_REFUND_QUERY = {**_QUERY, "TRADE_NOT_EXIST": Verdict.NOT_FOUND}

_CANCEL = {
    **_acquiring(
        UNKNOWN="SYSTEM_ERROR",
        # Where Alipay cannot give the money back now, it may still have closed or begun something.
        ASK="REASON_TRADE_BEEN_FREEZEN TRADE_HAS_FINISHED REASON_TRADE_REFUND_FEE_ERR CANCEL_NOT_ALLOWED TRADE_CANCEL_TIME_OUT",
        REFUSED="INVALID_PARAMETER SELLER_BALANCE_NOT_ENOUGH",
    ),
    "AQC.SYSTEM_ERROR": Verdict.UNKNOWN,  # the document's own spelling
}

_REFUND = _acquiring(
    UNKNOWN="SYSTEM_ERROR",
    ASK="DISCORDANT_REPEAT_REQUEST TRADE_SETTLE_ERROR ENTERPRISE_PAY_BIZ_ERROR REFUND_CHARGE_ERROR",
    REFUSED="""
        INVALID_PARAMETER SELLER_BALANCE_NOT_ENOUGH REFUND_AMT_NOT_EQUAL_TOTAL REASON_TRADE_BEEN_FREEZEN TRADE_NOT_EXIST
        TRADE_HAS_FINISHED TRADE_STATUS_ERROR REASON_TRADE_REFUND_FEE_ERR TRADE_NOT_ALLOW_REFUND REFUND_FEE_ERROR TRADE_HAS_CLOSE
        BUYER_NOT_EXIST BUYER_ENABLE_STATUS_FORBID REASON_TRADE_STATUS_INVALID NOT_ALLOW_PARTIAL_REFUND
        ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND BUYER_ERROR CURRENCY_NOT_SUPPORT ALLOC_AMOUNT_VALIDATE_ERROR USER_NOT_MATCH_ERR
        OVERDRAFT_ASSIGN_ACCOUNT_INVALID OVERDRAFT_AGREEMENT_NOT_MATCH REFUND_ACCOUNT_NOT_EXIST CUSTOMER_VALIDATE_ERROR
        REFUND_ROYALTY_PAYEE_ACCOUNT_NOT_EXIST REFUNDALLOC_UNAUTH_LIMIT
    """,
)

_BILL = _table(
    UNKNOWN="UNKNOWN_ERROR",
    NOT_FOUND="NO_BILL_DATA BILL_NOT_EXIST",
    REFUSED="INVAILID_ARGUMENTS BILL_DATE_BEFORE_REGISTRATION TYPE_NOT_SUPPORTED",
    BUSY="SYSTEM_RATE_LIMIT USER_RATE_LIMIT",
)

_BY_CALL = {
    Call.PAY: _PAY,
    Call.PRECREATE: _PRECREATE,
    Call.QUERY: _QUERY,
    Call.CANCEL: _CANCEL,
    Call.REFUND: _REFUND,
    Call.REFUND_QUERY: _REFUND_QUERY,
    Call.BILL: _BILL,
}

_CREDENTIALS = _words("""
    missing-signature missing-signature-type missing-default-signature-type missing-signature-key missing-signature-config
    invalid-signature-type invalid-signature-type-said-interface invalid-signature unsupported-expired-app-key-sign
    app-key-security-risk app-cert-expired app-cert-not-exist alipay-cert-not-exist missing-app-cert-sn missing-alipay-cert-sn
    missing-alipay-root-cert-sn invalid-alipay-root-cert-sn missing-app-id invalid-app-id invalid-app-state
    insufficient-isv-permissions illegal-client-ip app-api-punished invalid-partnerid app-unbind-partner
    sevice-not-been-subscribed-to
""")

# What Alipay's gateway says before a call comes to whatever moves money.
_COMMON = {
    **dict.fromkeys(_CREDENTIALS, Verdict.REFUSED),
    **_table(
        BUSY="app-call-limited method-call-limited",
        # Said of an answer from behind the gateway, or of nothing in particular.
        UNKNOWN="unknow-error unknown-sub-code invalid-response-data access-data-time-out",
        REFUSED="""
            invalid-parameter upload-fail invalid-file-extension invalid-file-size file-check-fail insufficient-user-permissions
            self-invoke-forbidden app-auth-invoke-limit missing-method missing-platform invalid-platform invalid-method
            forbidden-api invalid-format missing-app-access-token invalid-request-data missing-encrypt-type missing-encrypt-key
            invalid-encrypt-type invalid-encrypt missing-session missing-timestamp invalid-timestamp illegal-timestamp
            missing-version invalid-version unsupported-version invalid-encoding invalid-charset invalid-digest-type
            invalid-digest invalid-subscribe-relations invalid-auth-token auth-token-time-out invalid-app-auth-token
            invalid-app-auth-token-no-api
            app-auth-token-time-out not-support-app-auth unsupport-operation openid-error invalid-app-method missing-app-uid
            illegal-json illegal-card-no no-product-reg-by-partner decryption-error decryption-error-missing-encrypt-type
            decryption-error-not-valid-encrypt-type decryption-error-not-valid-encrypt-key decryption-error-unknown
            suspected-attack invalid-auth-relations invalid-product method-forbidden-batch-invoke exist-blank-sub-request-id
            exist-repeated-sub-request-id invalid-app-auth-relations app-invalid-oid exceed-api-balance inner-app-no-access
            invalid-inner-invoke-scene invalid-app-api-field-config
        """,
    ),
}
