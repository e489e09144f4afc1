"""Alipay's bill of a day: a ZIP with CSV files in GBK, of which the one that begins with 支付宝业务明细查询 ("business details")
lists every payment and refund. Pure, and defensive: whatever it cannot read surely is an error, never a line left out.

The format is that of bills which others have published (there is no machine-readable description of it): 25 columns, not quoted,
so that commas in the title or the note make more of them; numbers of trades end in a tab; refunds are negative.
"""

import lzma
import re
import zipfile
import zlib
from datetime import datetime
from decimal import Decimal
from io import BytesIO
from zoneinfo import ZoneInfo

from schemas.money import Money
from schemas.payments import StatementLine

ZONE = ZoneInfo("Asia/Shanghai")
TITLE = "#支付宝业务明细查询"
SUMMARY_TITLE = "#支付宝业务汇总查询"
# fmt: off
COLUMNS = [
    "支付宝交易号", "商户订单号", "业务类型", "商品名称", "创建时间", "完成时间", "门店编号", "门店名称",
    "操作员", "终端号", "对方账户", "订单金额（元）", "商家实收（元）", "支付宝红包（元）", "集分宝（元）", "支付宝优惠（元）",
    "商家优惠（元）", "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）", "退款批次号/请求号",
    "服务费（元）", "分润（元）", "备注",
]
# fmt: on
PAYMENT, REFUND = "交易", "退款"

_MOST_FILES = 20
_MOST_BYTES = 256 * 1024 * 1024
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
# What Python takes for a number is more: `1_0.00`, `1e2`.
_YUAN = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,2})?", re.ASCII)
_BEFORE_TITLE, _FROM_TIMES = 3, 4
_UNPACKING = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    UnicodeDecodeError,
)


class NotABill(ValueError):
    """What was downloaded cannot be read as a bill."""


def read(archive: bytes) -> list[StatementLine]:
    """The lines of the bill, in its order. Raises NotABill."""
    details = [text for text in _texts(archive) if text.lstrip("\ufeff").startswith(TITLE)]
    if not details:
        raise NotABill("there are no details in it")
    return [line for text in details for line in _lines(text)]


def _texts(archive: bytes) -> list[str]:
    """Bounded by what comes out, whatever the directory promises."""
    try:
        with zipfile.ZipFile(BytesIO(archive)) as packed:
            names = packed.infolist()
            if len(names) > _MOST_FILES:
                raise NotABill("there are too many files in it")
            texts = []
            left = _MOST_BYTES
            for name in names:
                with packed.open(name) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise NotABill("it is too large")
                texts.append(content.decode("gb18030"))
            return texts
    except _UNPACKING:
        raise NotABill("it is not a ZIP with texts in GBK") from None


def _lines(text: str) -> list[StatementLine]:
    found = []
    header_seen = False
    for row in text.splitlines():
        if not row.strip() or row.lstrip("\ufeff").startswith("#"):
            continue
        cells = [cell.strip() for cell in row.split(",")]
        if not header_seen:
            if [cell.replace("(", "（").replace(")", "）") for cell in cells[: len(COLUMNS)]] != COLUMNS:
                raise NotABill("its columns are others")
            header_seen = True
            continue
        line = _line(_aligned(cells))
        if line is not None:
            found.append(line)
    if not header_seen:
        raise NotABill("it has no columns")
    return found


def _aligned(cells: list[str]) -> dict[str, str]:
    """A title with commas is several cells: what follows it begins with two moments."""
    for position in range(_FROM_TIMES, len(cells) - 1):
        if _MOMENT.fullmatch(cells[position]) and _MOMENT.fullmatch(cells[position + 1]):
            title = ",".join(cells[_BEFORE_TITLE:position])
            rest = cells[position:]
            fixed = len(COLUMNS) - _FROM_TIMES - 1
            if len(rest) <= fixed:
                break
            return dict(
                zip(COLUMNS, [*cells[:_BEFORE_TITLE], title, *rest[:fixed], ",".join(rest[fixed:])], strict=True),
            )
    raise NotABill("one of its lines is incomplete")


def _line(row: dict[str, str]) -> StatementLine | None:
    """None where nothing moved."""
    kind = row["业务类型"]
    if kind not in {PAYMENT, REFUND}:
        raise NotABill("one of its lines is neither a payment nor a refund")
    try:
        if not _YUAN.fullmatch(row["订单金额（元）"]):
            raise NotABill("one of its lines has an amount that cannot be read")
        amount = Money.from_major(abs(Decimal(row["订单金额（元）"])), "CNY")
        if amount.minor == 0:
            return None
        occurred_at = datetime.strptime(row["完成时间"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE)
        if kind == PAYMENT:
            attempt_id = row["商户订单号"]
            return StatementLine(
                kind="payment", reference=attempt_id, attempt_id=attempt_id, amount=amount, occurred_at=occurred_at
            )
        return StatementLine(
            kind="refund",
            reference=row["商户订单号"],
            attempt_id=row["退款批次号/请求号"] or None,
            amount=amount,
            occurred_at=occurred_at,
        )
    except ValueError:
        raise NotABill("one of its lines has an amount or a moment that cannot be read") from None
