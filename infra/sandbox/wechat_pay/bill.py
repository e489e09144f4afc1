"""A day's trade bill in WeChat Pay's form. Unlike there, the bill of a day is to be had while the day lasts."""

from collections.abc import Sequence

from infra.sandbox.wechat_pay.ledger import GivenBack, Order

HEADING = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,"
    "代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,"
    "申请退款金额,费率备注"
)
SUMMARY = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"


def bill(moved: Sequence[tuple[Order, GivenBack | None]], mchid: str, appid: str) -> bytes:
    lines = [HEADING, *(_row(_fields(order, refund, mchid, appid)) for order, refund in moved), SUMMARY]
    taken = sum(order.total for order, refund in moved if refund is None)
    given = sum(refund.refund for _, refund in moved if refund is not None)
    lines.append(_row([str(len(moved)), _yuan(taken), _yuan(given), "0.00", "0.00000", _yuan(taken), _yuan(given)]))
    return ("\ufeff" + "".join(line + "\r\n" for line in lines)).encode()


def _fields(order: Order, refund: GivenBack | None, mchid: str, appid: str) -> list[str]:
    at = (refund.at if refund else order.paid_at or "")[:19].replace("T", " ")
    state = "SUCCESS" if refund is None else "REVOKED" if refund.out_refund_no == "0" else "REFUND"
    paid, given = (_yuan(order.total), "0.00") if refund is None else ("0.00", _yuan(refund.refund))
    return [
        *(at, appid, mchid, "0", "", order.transaction_id or "", order.out_trade_no, order.openid),
        *(order.trade_type, state, "OTHERS", "CNY", paid, "0.00"),
        *(refund.refund_id if refund else "0", refund.out_refund_no if refund else "0", given, "0.00"),
        *("ORIGINAL" if refund else "", "SUCCESS" if refund else ""),
        *(order.description, order.attach or "", "0.00000", "0.60%", paid, given, ""),
    ]


def _row(fields: Sequence[str]) -> str:
    return ",".join(f"`{field}" for field in fields)


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02}"
