"""The catalogue shop and its importer on real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from connectors.conformance.shops import ShopConformance
from connectors.ports import ShopConnector
from connectors.shops.catalogue import CatalogueShop
from connectors.shops.catalogue.importer import CatalogueRow, Sale, parse_catalogue
from schemas.commerce import Offer, ProductQuery
from schemas.errors import Rejected
from schemas.ids import MerchantId
from schemas.money import Money
from schemas.tables import catalogue_products, catalogues, merchants
from streams.catalogues import store
from streams.catalogues.service import import_prices
from streams.core.database import create_engine

MILK, JUICE = "04006381333931", "00000073513537"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def listed(*rows: str) -> list[CatalogueRow]:
    return parse_catalogue("\n".join(["gtin,title,language,brand,price,currency,url", *rows]).encode())


@pytest.fixture(scope="module")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


async def merchant(engine: AsyncEngine, name: str) -> MerchantId:
    merchant_id = MerchantId.new()
    async with engine.begin() as connection:
        await connection.execute(merchants.insert().values(id=merchant_id, name=name))
    return merchant_id


async def upload(
    engine: AsyncEngine, merchant_id: MerchantId, rows: list[CatalogueRow], at: datetime = NOW, *, replace: bool = False
) -> int:
    """Returns how many products the merchant has now."""
    async with engine.begin() as connection:
        return (await import_prices(connection, merchant_id, rows, at, replace=replace)).products


async def offers_of(engine: AsyncEngine, merchant_id: MerchantId, **query: str) -> list[Offer]:
    found = await CatalogueShop(engine).find(ProductQuery(**query))
    return [offer for offer in found if offer.merchant_id == merchant_id]


@pytest.fixture(scope="module")
async def two_merchants(engine: AsyncEngine) -> list[MerchantId]:
    dear, cheap = await merchant(engine, "Dear"), await merchant(engine, "Cheap")
    await upload(engine, dear, listed(f"{MILK},Vollmilch,de,Hofgut,1.99,EUR,https://dear.example/milk"))
    await upload(engine, cheap, listed(f"{MILK},Milk,en,,1.49,EUR,", f"{JUICE},Juice,en,,2,EUR,"))
    return [dear, cheap]


class TestCatalogue(ShopConformance):
    @pytest.fixture
    def connector(self, engine: AsyncEngine, two_merchants: list[MerchantId]) -> ShopConnector:
        return CatalogueShop(engine)

    @pytest.fixture
    def gtin(self) -> str:
        return MILK

    @pytest.fixture
    async def unreachable(self) -> AsyncIterator[ShopConnector]:
        engine = create_async_engine("postgresql+psycopg://nobody:SECRET@127.0.0.1:1/none")
        yield CatalogueShop(engine)
        await engine.dispose()

    async def test_all_merchants_in_one_query(
        self, connector: ShopConnector, engine: AsyncEngine, two_merchants: list[MerchantId]
    ) -> None:
        statements = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        found = await connector.find(ProductQuery(gtin=MILK))
        offers = [offer for offer in found if offer.merchant_id in two_merchants]
        assert len(statements) == 1
        assert [(offer.merchant_name, offer.price.minor, offer.url) for offer in offers] == [
            ("Cheap", 149, None),
            ("Dear", 199, "https://dear.example/milk"),
        ]
        assert offers[1].product.brand == "Hofgut"
        assert offers[0].observed_at == NOW

    async def test_a_quote_has_the_price_of_now(self, connector: ShopConnector, engine: AsyncEngine) -> None:
        fickle = await merchant(engine, "Fickle")
        await upload(engine, fickle, listed(f"{JUICE},Juice,en,,2.00,EUR,"))
        (offer,) = await offers_of(engine, fickle, gtin=JUICE)
        await upload(engine, fickle, listed(f"{JUICE},Juice,en,,2.50,EUR,"))
        quote = await connector.quote(offer, 3)
        assert (quote.offer.price.minor, quote.total.minor) == (250, 750)

        await upload(engine, fickle, listed(f"{MILK},Milk,en,,1.49,EUR,"), replace=True)
        with pytest.raises(Rejected) as refused:
            await connector.quote(offer, 1)
        assert refused.value.problem.code == "offer-expired"


async def test_importing_again_changes_nothing_but_the_observation(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Again")
    rows = listed(f"{MILK},Milk,en,,1.49,EUR,", f"{JUICE},Juice,en,Hofgut,2,EUR,")
    assert await upload(engine, seller, rows) == 2
    before = await stored(engine, seller)
    assert await upload(engine, seller, rows, NOW + timedelta(hours=1)) == 2
    after = await stored(engine, seller)
    assert [row[:-1] for row in after] == [row[:-1] for row in before]
    assert {row[-1] for row in after} == {NOW + timedelta(hours=1)}


async def test_what_a_list_does_not_name_stays(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Stays")
    await upload(engine, seller, listed(f"{MILK},Milk,en,,1.49,EUR,", f"{JUICE},Juice,en,,2,EUR,"))
    await upload(engine, seller, listed(f"{MILK},Milch,de,,1.59,EUR,"))
    assert [(row.gtin, row.price_minor) for row in await stored(engine, seller)] == [(JUICE, 200), (MILK, 159)]


async def test_a_failure_takes_everything_back(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Nothing")
    with pytest.raises(ZeroDivisionError):
        async with engine.begin() as connection:
            await import_prices(connection, seller, listed(f"{MILK},Milk,en,,1.49,EUR,"), NOW)
            raise ZeroDivisionError
    assert await stored(engine, seller) == []


async def test_a_long_list_uploaded_several_times_at_once(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Long")
    gtins = [f"{number:012}" for number in range(100_000, 102_500)]
    rows = listed(*(f"{gtin}{_check_digit(gtin)},Milk {gtin},en,,1.49,EUR," for gtin in gtins))
    await asyncio.gather(*(upload(engine, seller, list(reversed(rows)) if turn else rows) for turn in (0, 1, 0)))
    async with engine.connect() as connection:
        count = select(func.count()).where(catalogue_products.c.merchant_id == seller).group_by(catalogue_products.c.snapshot)
        assert (await connection.execute(count)).scalars().all() == [2500, 2500, 2500]


async def test_a_product_that_only_its_merchant_knows(engine: AsyncEngine) -> None:
    seller, other = await merchant(engine, "Bakery"), await merchant(engine, "Other bakery")
    bread = parse_catalogue(b"product_id,title,language,price,currency\nbread-7,Bread,en,3.20,EUR\n")
    await upload(engine, seller, bread)
    await upload(engine, other, bread)
    (offer,) = await CatalogueShop(engine).find(ProductQuery(merchant_id=seller, product_id="bread-7"))
    assert (offer.merchant_id, offer.product.gtin, offer.product.product_id) == (seller, None, "bread-7")
    assert (await CatalogueShop(engine).quote(offer, 2)).total == Money.of(640, "EUR")
    assert list(await CatalogueShop(engine).find(ProductQuery(product_id="bread-7"))) == []


async def test_what_has_no_price_or_is_out_of_stock_is_not_offered(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Empty shelves")
    await upload(engine, seller, listed(f"{MILK},Milk,en,,,,"))
    assert await offers_of(engine, seller, gtin=MILK) == []
    (juice,) = listed(f"{JUICE},Juice,en,,2,EUR,")
    await upload(engine, seller, [replace(juice, available=False)])
    assert await offers_of(engine, seller, gtin=JUICE) == []
    await upload(engine, seller, [juice])
    assert await offers_of(engine, seller, gtin=JUICE) != []


@pytest.mark.parametrize(("begins", "ends", "price"), [(-1, 1, 99), (None, None, 99), (1, 2, 149), (-2, -1, 149)])
async def test_a_sale_counts_while_it_is_on(engine: AsyncEngine, begins: int | None, ends: int | None, price: int) -> None:
    seller, now = await merchant(engine, "Sale"), datetime.now(UTC)
    (milk,) = listed(f"{MILK},Milk,en,,1.49,EUR,")
    times = [None if hours is None else now + timedelta(hours=hours) for hours in (begins, ends)]
    await upload(engine, seller, [replace(milk, sale=Sale(Money.of(99, "EUR"), *times))])
    (offer,) = await offers_of(engine, seller, gtin=MILK)
    assert offer.price == Money.of(price, "EUR")
    assert (await CatalogueShop(engine).quote(offer, 1)).total == Money.of(price, "EUR")


async def test_a_product_that_changes_its_name_is_not_sold_twice(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Renamed")
    await upload(engine, seller, listed(f"{MILK},Milk,en,,1.49,EUR,"))
    renamed = parse_catalogue(f"product_id,gtin,title,language,price,currency\nm-1,{MILK},Milk,en,1.59,EUR\n".encode())
    assert await upload(engine, seller, renamed) == 1
    (offer,) = await offers_of(engine, seller, gtin=MILK)
    assert (offer.product.product_id, offer.price.minor) == ("m-1", 159)


async def test_a_former_price_list_is_back_with_one_switch(engine: AsyncEngine) -> None:
    seller = await merchant(engine, "Undecided")
    for price in ("1.49", "9.99"):
        await upload(engine, seller, listed(f"{MILK},Milk,en,,{price},EUR,"))
    assert (await offers_of(engine, seller, gtin=MILK))[0].price.minor == 999
    async with engine.begin() as connection:
        await store.switch(connection, seller, 1, instead_of=2)
    assert (await offers_of(engine, seller, gtin=MILK))[0].price.minor == 149


async def stored(engine: AsyncEngine, seller: MerchantId) -> list:
    """What is current."""
    columns = [column for column in catalogue_products.c if column.name not in {"merchant_id", "snapshot", "observed_at"}]
    current = select(catalogues.c.current).where(catalogues.c.merchant_id == seller).scalar_subquery()
    async with engine.connect() as connection:
        query = (
            select(*columns, catalogue_products.c.observed_at)
            .where(catalogue_products.c.merchant_id == seller, catalogue_products.c.snapshot == current)
            .order_by(catalogue_products.c.gtin)
        )
        return list((await connection.execute(query)).all())


def _check_digit(number: str) -> int:
    return -sum((3, 1)[place % 2] * int(digit) for place, digit in enumerate(reversed(number))) % 10
