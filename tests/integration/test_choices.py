"""Asking the wearer which product it is, on real rows: the question, the answer, and what can be paid then."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from connectors import registry
from connectors.rates.ecb import EcbRates
from connectors.registry import Surroundings
from connectors.shops.catalogue.importer import CatalogueRow
from schemas.commerce import OffersFound, Product
from schemas.errors import Rejected
from schemas.events import Event, new_event
from schemas.ids import EventId, JourneyId
from schemas.money import Money
from schemas.recognition import Candidate, Choice, ChoiceMade, Evidence, Intent, PriceTag, Recognition, Unclear, Undecided
from schemas.recognition import UnclearReason as Reason
from streams.catalogues import store as catalogue_store
from streams.catalogues.service import import_prices
from streams.core.database import Database
from streams.gateway import problems
from streams.gateway import service as gateway
from streams.gateway import store as gateway_store
from streams.gateway.pictures import PicturesApi
from streams.offers.agent import Offers
from tests.integration.intents.world import PAYER, wearer
from tests.support.frames import gtin13
from tests.support.rows import PairedGlasses, Rows, Shop

AUDIENCE = "augenblick-gateway"
CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
TAG = PriceTag(price=Money.of(199, "EUR"), confidence=0.95, corners=CORNERS)


@pytest.fixture
def stage(database: Database) -> Offers:
    surroundings = Surroundings(engine=database.engine)
    shops = {"catalogue": registry.shop("catalogue", surroundings)}
    return Offers(database, shops, registry.translator("glossary", surroundings), EcbRates())


@pytest.fixture
async def glasses(rows: Rows) -> PairedGlasses:
    return await rows.glasses(locale="de-DE", payer=PAYER)


async def sell(rows: Rows, shop: Shop, *products: Product, price: Money | None = None) -> None:
    price = price or Money.of(450, "EUR")
    listed = [CatalogueRow(line=line, product=product, price=price, url=None) for line, product in enumerate(products, 1)]
    async with rows.database.transaction() as connection:
        await import_prices(connection, shop.merchant_id, listed, datetime.now(UTC))


def candidate(shop: Shop, product_id: str, title: str, *, gtin: str | None = None, picture: str | None = None) -> Candidate:
    return Candidate(
        merchant_id=shop.merchant_id,
        product_id=product_id,
        gtin=gtin,
        title=title,
        language="en",
        confidence=0.5,
        picture=picture,
        snapshot=1,
    )


def undecided(*candidates: Candidate) -> Undecided:
    return Undecided(
        sighting_id=EventId.new(),
        frame_digest="a" * 64,
        intent=Intent.PRICE,
        reason="close",
        choices=tuple(Choice(gtin=one.gtin, candidate=one) for one in candidates),
        price_tag=TAG,
        models=("codes:1", "match:1"),
    )


async def ask(stage: Offers, glasses: PairedGlasses, data: Undecided) -> Event:
    context = {"journeyid": JourneyId.new(), "deviceid": glasses.device_id, "locale": "de-DE", "currency": "EUR"}
    event = new_event(
        "sighting.undecided", data, source="/sightings", deadline=datetime.now(UTC) + timedelta(seconds=20), **context
    )
    [(key, asked)] = await stage.handle(event)
    assert (key, asked.type, asked.journeyid) == (glasses.device_id, "choice.offered", event.journeyid)
    return asked


async def choose(stage: Offers, database: Database, glasses: PairedGlasses, asked: Event, choice: int) -> Event:
    """As the gateway admits it; returns the answer."""
    async with database.transaction() as connection:
        device = await gateway_store.find_device(connection, glasses.device_id)
    assert device is not None
    made = ChoiceMade(offered=asked.decode(Undecided), choice=choice)
    now = datetime.now(UTC)
    attributes = {
        "id": str(EventId.new()),
        "type": "choice.made",
        "journeyid": asked.journeyid,
        "data": made.model_dump_json(exclude_none=True).encode(),
    }
    event = gateway.admit(gateway.stamped(attributes, device, now), device, timedelta(seconds=20), now)
    [(_, answer)] = await stage.handle(event)
    assert answer.journeyid == asked.journeyid
    return answer


async def test_the_question_is_in_the_wearers_language_and_shows_pictures(
    rows: Rows, stage: Offers, glasses: PairedGlasses
) -> None:
    shop, picture = await rows.merchant(), sha256(b"a picture").hexdigest()
    asked = await ask(
        stage, glasses, undecided(candidate(shop, "1", "Organic milk", picture=picture), candidate(shop, "2", "Whatever"))
    )
    question = asked.decode(Undecided)
    assert [choice.title for choice in question.choices] == ["Bio Milch", "Whatever"]
    assert [choice.picture for choice in question.choices] == [f"/v1/pictures/{picture}", None]
    assert question.text == "Welches davon ist es: Bio Milch oder Whatever?"


async def test_a_product_without_a_gtin_is_its_own_merchants_alone_and_can_be_paid(
    rows: Rows, database: Database, stage: Offers
) -> None:
    shop, other = await rows.merchant("Hofladen"), await rows.merchant("Andere")
    for each in (shop, other):
        await sell(rows, each, Product(product_id="honey-1", title="Honig", language="de"))
    someone = await wearer(rows)
    glasses = PairedGlasses(someone.id, someone.key)
    asked = await ask(stage, glasses, undecided(candidate(shop, "honey-1", "Honig"), candidate(shop, "honey-2", "Sirup")))
    found = (await choose(stage, database, glasses, asked, 0)).decode(OffersFound)
    assert [shown.offer.merchant_name for shown in found.offers] == ["Hofladen"]
    assert (found.gtin, found.product_id, found.price_tag) == (None, "honey-1", TAG)
    await someone.wear()
    proposed = await someone.proposed(found.offers[0].offer_id)
    assert [(line.gtin, line.product_id) for line in proposed.terms.cart] == [(None, "honey-1")]
    assert await someone.approves(proposed) is None, "what the wearer sees is what is signed, also without a GTIN"


async def test_a_product_with_a_gtin_is_asked_of_every_merchant(
    rows: Rows, database: Database, stage: Offers, glasses: PairedGlasses
) -> None:
    gtin = "0" + gtin13(880_001)
    shop, other = await rows.merchant("Hofladen"), await rows.merchant("Andere")
    await sell(rows, shop, Product(gtin=gtin, product_id="juice-1", title="Saft", language="de"))
    await sell(rows, other, Product(gtin=gtin, product_id="4711", title="Saft", language="de"), price=Money.of(399, "EUR"))
    asked = await ask(stage, glasses, undecided(candidate(shop, "other", "Sirup"), candidate(shop, "juice-1", "Saft", gtin=gtin)))
    answer = await choose(stage, database, glasses, asked, 1)
    found = answer.decode(OffersFound)
    assert [shown.offer.merchant_name for shown in found.offers] == ["Andere", "Hofladen"]
    assert answer.capturedat is None, "the time a person thinks is nobody's latency"


async def test_a_choice_that_was_not_offered_is_refused_at_the_door(
    rows: Rows, database: Database, stage: Offers, glasses: PairedGlasses
) -> None:
    shop = await rows.merchant()
    asked = await ask(stage, glasses, undecided(candidate(shop, "1", "Milk"), candidate(shop, "2", "Juice")))
    with pytest.raises(ValueError, match="was not offered"):
        ChoiceMade(offered=asked.decode(Undecided), choice=2)
    made = ChoiceMade.model_construct(offered=asked.decode(Undecided), choice=2)
    event = new_event("choice.made", made, source="/x", journeyid=JourneyId.new())
    with pytest.raises(Rejected) as refused:
        event.decode(ChoiceMade)
    assert refused.value.problem.code == "event-invalid"


async def test_a_recognised_product_that_nobody_offers_is_named(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    shop = await rows.merchant()
    seen = Recognition(
        sighting_id=EventId.new(),
        frame_digest="a" * 64,
        intent=Intent.IDENTIFY,
        candidate=candidate(shop, "not sold", "Birne"),
        evidence=Evidence.PICTURE,
        confidence=0.97,
        models=("match:1",),
    )
    context = {"journeyid": JourneyId.new(), "deviceid": glasses.device_id, "locale": "de-DE"}
    [(_, answer)] = await stage.handle(new_event("sighting.recognised", seen, source="/sightings", **context))
    assert answer.decode(OffersFound).text == "Birne. Kein verbundener Laden verkauft das."


async def test_a_price_tag_without_a_product_is_told_with_the_hint(stage: Offers, glasses: PairedGlasses) -> None:
    seen = Unclear(
        sighting_id=EventId.new(), frame_digest="a" * 64, intent=Intent.PRICE, reason=Reason.UNKNOWN_PRODUCT, price_tag=TAG
    )
    context = {"journeyid": JourneyId.new(), "deviceid": glasses.device_id, "locale": "de-DE"}
    [(_, answer)] = await stage.handle(new_event("sighting.unclear", seen, source="/sightings", **context))
    hint = answer.decode(Unclear).hint
    assert hint is not None and hint.startswith("Auf dem Schild steht 1,99\xa0€. Dieses Produkt kenne ich nicht.")


# The pictures of choices.


def thumbnail() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(written, "JPEG")
    return written.getvalue()


@pytest.fixture
async def client(rows: Rows) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    problems.install(app)
    app.include_router(PicturesApi(rows.database, AUDIENCE).router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def test_pictures_are_shown_to_devices_and_makers(rows: Rows, glasses: PairedGlasses, client: httpx.AsyncClient) -> None:
    digest = sha256(b"kept").hexdigest()
    async with rows.database.transaction() as connection:
        await catalogue_store.keep_picture(connection, digest, thumbnail=thumbnail(), width=640, height=480)
    _, token = await rows.maker()
    device = {"Authorization": f"Bearer {glasses.key.token(glasses.device_id, AUDIENCE)}"}
    for headers in (device, {"Authorization": f"Bearer {token}"}):
        shown = await client.get(f"/v1/pictures/{digest}", headers=headers)
        assert (shown.status_code, shown.headers["content-type"], shown.content) == (200, "image/jpeg", thumbnail())
        assert "immutable" in shown.headers["cache-control"] and shown.headers["x-content-type-options"] == "nosniff"
    again = await client.get(f"/v1/pictures/{digest}", headers={**device, "If-None-Match": shown.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert (await client.get(f"/v1/pictures/{'0' * 64}", headers=device)).json()["code"] == "not-found"
    assert (await client.get("/v1/pictures/..%2Fetc", headers=device)).status_code in {404, 422}


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer a.b.c", "Basic x"])
async def test_and_to_nobody_else(client: httpx.AsyncClient, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    refused = await client.get(f"/v1/pictures/{'0' * 64}", headers=headers)
    assert refused.status_code == 401
