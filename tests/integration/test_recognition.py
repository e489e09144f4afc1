"""What leaves the real recogniser: products' codes, and nothing of anybody else's; in time, and again after Triton was away."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import perf_counter

import psycopg
import pytest
import zxingcpp
from PIL import Image
from sqlalchemy import func, insert, update
from sqlalchemy.dialects.postgresql import insert as upsert

from infra.sandbox.pictures.code_frames import EASY, draw
from schemas.ids import MerchantId
from schemas.money import Money
from schemas.recognition import Code, Intent, PayeeScheme, Recognition, Unclear, UnclearReason
from schemas.tables import catalogue_products, catalogue_snapshots, catalogues
from streams.core.database import Database
from streams.sightings.catalogues import Catalogues, Market, read_current
from streams.sightings.payee_codes import PayersCode, read
from streams.sightings.recogniser import Look, Recogniser
from streams.sightings.service import Frame
from streams.sightings.triton import MAXIMUM_BYTES, Failed, Late, Models, Unreadable
from tests.support.frames import barcode_jpeg, blank_jpeg, gtin13
from tests.support.payee_codes import emvco, frame, tlv
from tests.support.rows import Rows

SOMEBODYS_PAYMENT_CODE = "281234567890123456"
PRODUCT = gtin13(4713)


@asynccontextmanager
async def models(url: str) -> AsyncIterator[Models]:
    models = Models(url)
    try:
        yield models
    finally:
        await models.close()


async def look(url: str, picture: bytes, intent: Intent = Intent.PAY, time_s: float = 5.0) -> Look:
    async with models(url) as asked:
        return await Recogniser(asked).look(picture, Frame("s", "0" * 64, intent), time_s, region="SE")


async def recognised(url: str, picture: bytes, intent: Intent = Intent.PAY) -> tuple[Code, ...]:
    return (await look(url, picture, intent)).seen.codes


def both_in_view() -> bytes:
    """A product beside a phone that shows a payment code."""
    picture = Image.open(io.BytesIO(barcode_jpeg(PRODUCT))).convert("L")
    code = zxingcpp.create_barcode(SOMEBODYS_PAYMENT_CODE, zxingcpp.BarcodeFormat.QRCode)
    picture.paste(Image.fromarray(code.to_image(scale=5)), (460, 300))
    written = io.BytesIO()
    picture.convert("RGB").save(written, "JPEG", quality=90)
    return written.getvalue()


async def test_a_payment_code_in_view_is_seen_and_not_told(triton_url: str) -> None:
    found = await look(triton_url, both_in_view())
    assert {code.format for code in found.seen.codes} == {"EAN13", "QRCode"}
    assert isinstance(found.result, Recognition) and found.result.gtin == "0" + PRODUCT
    assert [code.text for code in found.seen.codes if code.gtin] == [PRODUCT]
    assert SOMEBODYS_PAYMENT_CODE not in repr(found)


async def test_a_frame_without_a_code_has_none_and_what_is_no_picture_is_refused(triton_url: str) -> None:
    found = await look(triton_url, blank_jpeg())
    assert isinstance(found.result, Unclear) and found.result.reason is UnclearReason.NO_CODE
    assert found.seen.failed == found.seen.late == () and found.seen.size == (640, 480)
    for frame_bytes in (b"no picture", b"", blank_jpeg()[:400], b"\xff\xd8\xff" + bytes(MAXIMUM_BYTES)):
        with pytest.raises(Unreadable):
            await look(triton_url, frame_bytes)


async def test_a_code_that_is_too_far_away_is_asked_to_be_closer(triton_url: str) -> None:
    """Without any catalogue: `codes` alone tells that there is one."""
    hints = Counter[str]()
    for seed in range(8):
        found = await look(triton_url, draw(seed, "EAN13", replace(EASY, module=(0.75, 0.85))).jpeg)
        if isinstance(found.result, Unclear) and found.seen.unread:
            hints[found.result.reason] += 1
    assert hints[UnclearReason.TOO_FAR] >= 2 and hints[UnclearReason.TOO_FAR] >= 0.7 * hints.total()


async def test_an_add_on_is_told_with_what_it_means(triton_url: str) -> None:
    [code] = await recognised(triton_url, frame("9771234567003+07", format=zxingcpp.BarcodeFormat.EAN13), Intent.READ)
    assert (code.publication, code.add_on, code.issue) == ("ISSN 12345679", "07", 7)


async def test_payees_codes_in_view_are_told_without_their_text(triton_url: str) -> None:
    bill = emvco({"01": "12", "54": "12.50", "64": tlv("00", "ZH") + tlv("01", "市场书店"), "62": tlv("01", "B-17")})
    wallet = "https://qr.alipay.com/fkx01234abcdefghijk5678"
    codes = await recognised(triton_url, frame(bill, wallet))
    payees = {code.payee.scheme: code.payee for code in codes if code.payee}
    assert payees == {PayeeScheme.EMVCO: read(bill), PayeeScheme.ALIPAY: read(wallet)}
    assert payees[PayeeScheme.EMVCO].amount == Money.of(1250, "CNY"), "its checksum holds over the UTF-8 that was printed"
    assert all(code.text == "" for code in codes) and "fkx01234" not in repr(codes)


@pytest.mark.parametrize("symbology", [zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
async def test_a_payment_code_is_known_in_either_symbology(triton_url: str, symbology: zxingcpp.BarcodeFormat) -> None:
    [code] = await recognised(triton_url, frame(SOMEBODYS_PAYMENT_CODE, format=symbology))
    assert isinstance(code, PayersCode)
    assert SOMEBODYS_PAYMENT_CODE not in repr(code) + code.model_dump_json()


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("(01)09506000134352(17)270300(10)12AB", zxingcpp.BarcodeFormat.QRCode),
        ("https://id.gs1.org/01/09506000134352/10/12AB?17=270300", zxingcpp.BarcodeFormat.QRCode),
        ("https://id.gs1.org/01/09506000134352/10/12AB?17=270300", zxingcpp.BarcodeFormat.DataMatrix),
    ],
)
async def test_what_gs1_says_beside_the_number(triton_url: str, text: str, format: zxingcpp.BarcodeFormat) -> None:
    [code] = await recognised(triton_url, frame(text, format=format))
    assert code.gtin == "09506000134352" and code.elements is not None
    assert (str(code.elements.expires_on), code.elements.batch) == ("2027-03-31", "12AB")


async def test_an_in_store_number_tells_its_price_where_the_region_is_known(triton_url: str) -> None:
    found = await look(triton_url, barcode_jpeg("2012345619951"), Intent.PRICE)
    assert isinstance(found.result, Unclear) and found.result.reason is UnclearReason.PRICE_ONLY
    assert [code.in_store.price for code in found.result.codes if code.in_store] == [Money.of(1995, "SEK")]


async def test_an_address_is_shown_to_who_wants_to_read(triton_url: str) -> None:
    picture = frame("https://exämple.com/menu")
    assert [code.link for code in await recognised(triton_url, picture, Intent.READ)] == ["https://xn--exmple-cua.com/menu"]
    assert [code.link for code in await recognised(triton_url, picture, Intent.IDENTIFY)] == [None]


# Time, and Triton's absence.


class Line:
    """A line to Triton that can be cut and mended."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.partition(":")
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, int(self._port))
        self._open |= {writer, back}
        with suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.transport.abort()


async def test_triton_away_is_said_at_once_and_its_return_is_noticed_without_a_restart(triton_url: str) -> None:
    line, picture = Line(triton_url), barcode_jpeg(PRODUCT)
    await line.mend()
    async with models(f"127.0.0.1:{line.port}") as asked:
        recogniser = Recogniser(asked)

        async def glance() -> Look:
            return await recogniser.look(picture, Frame("s", "0" * 64, Intent.IDENTIFY), 2.0)

        assert isinstance((await glance()).result, Recognition)
        assert await asked.is_ready("codes") and not await asked.is_ready("no such model")
        await line.cut()
        away = await glance()
        assert isinstance(away.result, Unclear) and away.result.reason is UnclearReason.RECOGNITION_UNAVAILABLE
        assert away.seen.failed == ("codes",) and not await asked.is_ready("codes")
        await line.mend()
        began = perf_counter()
        while not isinstance((await glance()).result, Recognition):
            assert perf_counter() - began < 15.0, "the reconnection waits a second at most"
            await asyncio.sleep(0.05)
        await line.cut()


async def test_a_model_that_is_not_there_fails_alone(triton_url: str) -> None:
    async with models(triton_url) as asked:
        with pytest.raises(Failed):
            await asked._ask("no such model", blank_jpeg(), 1.0, {}, None)  # type: ignore[arg-type]


async def test_a_call_ends_when_its_time_is_up(triton_url: str) -> None:
    async with models(triton_url) as asked:
        began = perf_counter()
        with pytest.raises(Late):
            await asked.codes(blank_jpeg(), 0.0)
        with pytest.raises(Late):
            await asked.codes(blank_jpeg(), 0.0001)
        assert perf_counter() - began < 5.0


# What the workers know of the catalogues.


async def test_a_switch_is_noticed_without_listening_as_well(rows: Rows, database: Database, database_url: str) -> None:
    """Whoever ends the listener's connection delays the news, and does not keep it away."""
    shop = await rows.merchant()
    view = Catalogues(database, database_url)
    await view.start()
    watching = asyncio.create_task(view.watch())
    try:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as operator:
            for _ in range(400):
                ended = await operator.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
                if ended.rowcount:
                    break
                await asyncio.sleep(0.05)
        merchant_id = MerchantId(shop.merchant_id)
        assert merchant_id not in view.current
        await rows.product(shop)
        async with asyncio.timeout(20):
            while merchant_id not in view.current:
                await asyncio.sleep(0.02)
        assert view.current[merchant_id].name is None, "without pictures there is nothing to match"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_what_a_catalogue_with_pictures_is_sold_for_is_known(rows: Rows, database: Database) -> None:
    merchant = MerchantId((await rows.merchant()).merchant_id)
    async with database.transaction() as connection:

        async def sell(number: int, *products: tuple[str, str | None, str]) -> None:
            own = {"merchant_id": merchant}
            snapshot = {"number": number, "name": f"{merchant}-{number}", "matcher": "sift-1", "sha256": "f" * 64}
            await connection.execute(insert(catalogue_snapshots).values(**own, **snapshot))
            for name, currency, language in products:
                price = {"price_minor": 100 if currency else None, "price_currency": currency}
                told = {"product_id": name, "title": name, "language": language, "observed_at": func.now()}
                await connection.execute(insert(catalogue_products).values(**own, snapshot=number, **told, **price))
            published = catalogue_snapshots.c.merchant_id == merchant, catalogue_snapshots.c.number == number
            await connection.execute(update(catalogue_snapshots).where(*published).values(published_at=func.now()))
            switched = {"current": number, "last_number": number}
            switch = (
                upsert(catalogues).values(**own, **switched).on_conflict_do_update(index_elements=["merchant_id"], set_=switched)
            )
            await connection.execute(switch)

        await sell(1, ("milk", "CHF", "de-CH"), ("bread", "EUR", "fr"), ("sign", None, "de"))
        first = await read_current(connection)
        assert first[merchant].market == Market(frozenset({"CHF", "EUR"}), frozenset({"de", "fr"}))
        known = {merchant: replace(first[merchant], market=Market(frozenset({"SEK"})))}
        assert (await read_current(connection, known))[merchant] == known[merchant], "an unchanged snapshot is not read again"
        await sell(2, ("milk", None, "sv"))
        assert (await read_current(connection, first))[merchant].market == Market(frozenset(), frozenset({"sv"}))
