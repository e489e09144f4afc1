"""recognition.results → shops, exchange rates, translation; or the registry of payees; or a question → glasses.answers."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from connectors import registry
from connectors.ports import ExchangeRates, ShopConnector, Translator
from connectors.rates.ecb import EcbRates
from connectors.registry import Surroundings
from schemas.commerce import Offer, OffersFound, PayeesFound, ProductQuery, ShownOffer, Translation
from schemas.errors import Retryable
from schemas.events import Event, derived_id
from schemas.ids import PayeeCodeId
from schemas.recognition import ChoiceMade, PayeesSeen, Recognition, Unclear, Undecided
from schemas.topics import RECOGNITION_RESULTS
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.database import Database
from streams.core.faust_worker import run_consumer
from streams.core.handling import Direct
from streams.core.telemetry import names, tracing
from streams.offers import payee_store, payees, service, store

log = logging.getLogger(__name__)

_SOURCE = "/offers"
_TRANSLATION_S = 0.15  # of what is left; without it the shop's own words are shown
_FOR_THE_WAY_BACK_S = 0.1  # of the deadline, kept for storing, sending and showing the answer
_AT_LEAST_S = 0.05


class Offers:
    def __init__(
        self, database: Database, shops: Mapping[str, ShopConnector], translator: Translator, rates: ExchangeRates
    ) -> None:
        self._database = database
        self._shops = shops
        self._translator = translator
        self._rates = rates

    async def handle(self, event: Event) -> list[tuple[str, Event]]:
        locale, type = event.locale or "en", "look.again"
        answer: OffersFound | PayeesFound | Undecided | Unclear
        if event.type == "sighting.unclear":
            answer = service.look_again(event.decode(Unclear), locale)
        elif event.type == "sighting.undecided":
            answer, type = await self._question(event.decode(Undecided), locale), "choice.offered"
        elif event.type == "choice.made":
            # Its times are those of a person's thinking: neither a deadline nor how long an answer took.
            event = event.model_copy(update={"capturedat": None, "deadline": None})
            answer, type = await self._find(event, service.chosen(event.decode(ChoiceMade)), locale), "offers.found"
        elif event.type == "payees.seen":
            answer = await self._payees(event, event.decode(PayeesSeen), locale)
            type = "payees.found" if isinstance(answer, PayeesFound) else type
        else:
            answer, type = await self._find(event, event.decode(Recognition), locale), "offers.found"
        return [(str(event.deviceid), event.follow(type, answer, id=derived_id(event.id, "offers"), source=_SOURCE))]

    async def _payees(self, event: Event, sighting: PayeesSeen, locale: str) -> PayeesFound | Unclear:
        """The rows are committed before the answer is sent, so that what the wearer is shown can be paid; and without outbox and
        relay between the glance and its answer. Repeating an event counts its frame once, and makes the same answer again."""
        now, device_id = datetime.now(UTC), str(event.deviceid)
        at = min(event.capturedat or event.time, now)

        def new_id(digest: str) -> PayeeCodeId:
            return PayeeCodeId.from_uuid(derived_id(event.id, f"payee code {digest}").uuid)

        with tracing.span("transaction postgresql", attributes={names.DATABASE_SYSTEM: "postgresql"}):
            async with self._database.transaction() as connection:
                await payee_store.lock_device(connection, device_id)
                known = await payee_store.known(connection, device_id, now)
                codes = payees.seen(known, sighting.payees, sighting.frame_digest, at, new_id)
                registered = await payee_store.registered(connection, codes)
                await payee_store.keep(connection, device_id, event.journeyid, codes, registered)
        return payees.answer(sighting, codes, registered, locale)

    async def _question(self, undecided: Undecided, locale: str) -> Undecided:
        titles = service.titles(undecided)
        return service.question(undecided, await self._translate(titles, {}, locale), locale)

    async def _find(self, event: Event, recognition: Recognition, locale: str) -> OffersFound:
        offers, late, failed = await self._ask(service.query(recognition), self._left(event))
        brands = {brand: brand for offer in offers if (brand := offer.product.brand)}
        as_sold = [Translation(text=offer.product.title, language=offer.product.language, by="shop") for offer in offers]
        titles = await self._translate(as_sold, brands, locale)
        now = datetime.now(UTC)
        currency = event.currency or "EUR"
        shown = [
            service.show(
                offer,
                title,
                self._rates.rate(offer.price.currency, currency) if offer.price.currency != currency else None,
                cause=event.id,
                locale=locale,
                now=now,
                fresh_for=self._shops[offer.shop].capabilities.fresh_for,
            )
            for offer, title in zip(offers, titles, strict=True)
        ]
        ordered = service.order(shown, currency)
        await self._keep(event, recognition, ordered)
        return service.answer(recognition, ordered, locale, late, failed)

    def _left(self, event: Event) -> float:
        left = (event.deadline - datetime.now(UTC)).total_seconds() if event.deadline else 1.0
        return max(left - _FOR_THE_WAY_BACK_S, _AT_LEAST_S)

    async def _ask(self, query: ProductQuery, timeout_s: float) -> tuple[list[Offer], tuple[str, ...], tuple[str, ...]]:
        """All shops at once. Whoever is late or fails is named, and delays nobody."""
        tasks = {name: asyncio.create_task(self._ask_one(name, shop, query)) for name, shop in self._shops.items()}
        await asyncio.wait(tasks.values(), timeout=timeout_s)
        offers: list[Offer] = []
        late, failed = [], []
        for name, task in tasks.items():
            if not task.done():
                task.cancel()
                late.append(name)
            elif error := task.exception():
                if not isinstance(error, Retryable):
                    raise error
                log.info("shop %s did not answer: %s", name, error)
                failed.append(name)
            else:
                offers.extend(task.result())
        return offers, tuple(late), tuple(failed)

    async def _ask_one(self, name: str, shop: ShopConnector, query: ProductQuery) -> Sequence[Offer]:
        with tracing.span(f"find {name}", attributes={names.SHOP: name}):
            return await shop.find(query)

    async def _translate(self, titles: Sequence[Translation], brands: Mapping[str, str], locale: str) -> list[Translation]:
        """Titles in the wearer's language where the translator is quick enough, else as the shops wrote them. `brands` stay."""
        titles = list(titles)
        for language in {title.language for title in titles}:
            places = [place for place, title in enumerate(titles) if title.language == language]
            try:
                async with asyncio.timeout(_TRANSLATION_S):
                    texts = [titles[place].text for place in places]
                    translated = await self._translator.translate(texts, language, locale, brands)
            except (TimeoutError, Retryable):
                continue
            for place, translation in zip(places, translated, strict=True):
                titles[place] = translation
        return titles

    async def _keep(self, event: Event, recognition: Recognition, shown: Sequence[ShownOffer]) -> None:
        if not shown:
            return
        with tracing.span("transaction postgresql", attributes={names.DATABASE_SYSTEM: "postgresql"}):
            async with self._database.transaction() as connection:
                await store.keep(connection, event, recognition, shown)


async def run(parts: Parts) -> None:
    surroundings = Surroundings(engine=parts.database().engine)
    shops = {name: registry.shop(name, surroundings) for name in parts.settings.shops}
    offers = Offers(parts.database(), shops, registry.translator(parts.settings.translator, surroundings), EcbRates())
    consumer = Consumer(
        name="offers",
        topics=(RECOGNITION_RESULTS,),
        handling=Direct(await parts.producer(), offers.handle),
        event_types=frozenset({"sighting.recognised", "sighting.undecided", "sighting.unclear", "choice.made", "payees.seen"}),
        window=parts.settings.window,
        sheds_late=True,
    )
    await run_consumer(consumer, parts)
