"""The day's bill, as Alipay gives it: a ZIP with details and summary as CSV in GBK."""

import zipfile
from collections.abc import Iterable
from datetime import date, datetime
from io import BytesIO

from infra.sandbox.alipay.ledger import ZONE, Trade, clock, yuan

_HEADER = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,"
    "订单金额（元）,商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,"
    "商家红包消费金额（元）,卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def has_lines(trades: Iterable[Trade], day: date) -> bool:
    return any(_day(trade.paid_at) == day or any(_day(refund.at) == day for refund in trade.refunds) for trade in trades)


def make(trades: Iterable[Trade], day: date, account: str) -> bytes:
    rows = []
    for trade in trades:
        if _day(trade.paid_at) == day:
            rows.append(_row(trade, "交易", trade.total, clock(trade.paid_at), ""))
        rows += [
            _row(trade, "退款", -refund.amount, clock(refund.at), refund.request_no)
            for refund in trade.refunds
            if _day(refund.at) == day
        ]
    head = [f"#账号：[{account}0156]", f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]   终止日期：[{day:%Y年%m月%d日} 23:59:59]"]
    details = [
        "#支付宝业务明细查询",
        *head,
        f"#{'-' * 41}业务明细列表{'-' * 40}",
        _HEADER,
        *rows,
        f"#{'-' * 41}业务明细列表结束{'-' * 36}",
        f"#交易合计：{len(rows)}笔",
    ]
    summary = ["#支付宝业务汇总查询", *head, "门店编号,门店名称,交易订单总笔数,退款订单总笔数", f"合计,,{len(rows)},0"]
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in (("detail", details), ("summary", summary)):
            archive.writestr(f"{account}_{day:%Y%m%d}_{name}.csv", ("\r\n".join(lines) + "\r\n").encode("gbk", "replace"))
    return packed.getvalue()


def _row(trade: Trade, kind: str, fen: int, completed: str, request_no: str) -> str:
    amount = yuan(fen) if fen >= 0 else f"-{yuan(-fen)}"
    numbers = [f"{trade.trade_no}\t", f"{trade.out_trade_no}\t", f"{kind}\t"]
    about = [trade.subject, clock(trade.created_at), completed, "\t", "\t", "\t", "\t", "*华(san***@sandbox.example)\t"]
    amounts = [amount, amount, "0.00", "0.00", "0.00", "0.00", "0.00", "", "0.00\t", "0.00"]
    return ",".join([*numbers, *about, *amounts, f"{request_no}\t", "0.00", "0.00", trade.body])


def _day(moment: datetime | None) -> date | None:
    return moment.astimezone(ZONE).date() if moment else None
