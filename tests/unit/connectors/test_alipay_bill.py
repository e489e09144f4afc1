"""Alipay's bill of a day: read surely, or not at all."""

import zipfile
from datetime import UTC, datetime
from io import BytesIO

import pytest

from connectors.payments.alipay import bill
from schemas.money import Money
from schemas.payments import StatementLine

HEAD = "#支付宝业务明细查询\r\n#账号：[20880000000000160156]\r\n#---业务明细列表---\r\n"
HEADER = ",".join(bill.COLUMNS)


def row(
    kind: str = "交易", amount: str = "6.50", number: str = "t1", request: str = "", title: str = "Milk", note: str = ""
) -> str:
    before = [f"2026\t,{number}\t,{kind}\t,{title},2026-11-22 20:15:02,2026-11-22 20:15:03"]
    return ",".join(
        [*before, *["\t"] * 5, amount, amount, *["0.00"] * 5, "", "0.00\t", "0.00", f"{request}\t", "0.00", "0.00", note]
    )


def packed(*texts: str, encoding: str = "gbk") -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"{number}.csv", text.encode(encoding))
    return content.getvalue()


def details(*rows: str) -> str:
    return HEAD + "\r\n".join([HEADER, *rows]) + "\r\n#---业务明细列表结束---\r\n#交易合计：1笔\r\n"


def line(kind: str = "payment", minor: int = 650, attempt: str | None = "t1") -> StatementLine:
    return StatementLine(
        kind=kind,  # type: ignore[arg-type]
        reference="t1",
        attempt_id=attempt,
        amount=Money(minor=minor, currency="CNY"),
        occurred_at=datetime(2026, 11, 22, 12, 15, 3, tzinfo=UTC),
    )


def test_payments_and_refunds() -> None:
    text = details(row(), row("退款", "-2.00", request="att_2"), row("退款", "0.00", request="att_3"))
    assert bill.read(packed(text, "#支付宝业务汇总查询\r\n合计")) == [line(), line("refund", 200, "att_2")]


def test_a_day_on_which_nothing_moved() -> None:
    assert bill.read(packed(details())) == []


def test_commas_in_what_people_wrote() -> None:
    assert bill.read(packed(details(row(title="Milk, oat, 1,5 l", note="a,b,,c")))) == [line()]


def test_other_brackets_and_a_mark_of_the_encoding() -> None:
    text = details(row()).replace("（元）", "(元)")
    assert bill.read(packed(text)) == [line()]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#支付宝业务汇总查询\r\n",
        HEAD,
        HEAD + "a,b,c\r\n",
        HEAD + HEADER.replace("订单金额", "金额") + "\r\n",
        details("2026,t1,交易"),
        details(row(kind="充值")),
        details(row(amount="x")),
        details(row(amount="6.505")),
        details(row(amount="NaN")),
        details(row(amount="1_0.00")),
        details(row(amount="1e2")),
        details(row(amount="")),
        details(row(title="2026-11-22 20:15:02,2026-11-22 20:15:03").replace("20:15:03,", "", 1)[:60]),
        details(row().replace("2026-11-22 20:15:03", "2026-13-22 20:15:03")),
    ],
)
def test_what_cannot_be_read_is_no_bill(text: str) -> None:
    with pytest.raises(bill.NotABill):
        bill.read(packed(text))


def test_what_is_no_archive_is_no_bill() -> None:
    whole = packed(details(row()))
    for content in (
        b"",
        b"hello",
        whole[:-30],
        whole[:40] + b"\xff" * 40 + whole[80:],
        packed(details(row()), encoding="utf-16"),
    ):
        with pytest.raises(bill.NotABill):
            bill.read(content)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as file:
        for _ in range(257):
            file.write(b"0" * 1024 * 1024)
    assert len(bomb.getvalue()) < 1024 * 1024
    with pytest.raises(bill.NotABill, match="too large"):
        bill.read(bomb.getvalue())
    with pytest.raises(bill.NotABill, match="too many"):
        bill.read(packed(*["x"] * 21))


def test_a_locked_archive_is_no_bill() -> None:
    content = bytearray(packed(details(row())))
    # The flag that says that an entry is encrypted, in its own head and in the directory.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(bill.NotABill):
        bill.read(bytes(content))
