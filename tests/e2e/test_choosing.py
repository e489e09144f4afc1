"""Being asked, and answering: a question on the real glasses' link, the wearer's choice, and its offers; and paying for one."""

from aiokafka import AIOKafkaProducer

from schemas.events import new_event, to_kafka
from schemas.ids import EventId, JourneyId
from schemas.recognition import Candidate, Choice, Intent, Undecided
from schemas.topics import RECOGNITION_RESULTS
from tests.support.world import RunningPlatform


async def test_the_wearer_is_asked_chooses_and_pays(platform: RunningPlatform) -> None:
    milk, juice = await platform.rows.product(platform.shop, title="Organic milk"), await platform.rows.product(platform.shop)
    choices = tuple(
        Choice(
            gtin="0" + product.gtin,
            candidate=Candidate(
                merchant_id=platform.shop.merchant_id,
                product_id="0" + product.gtin,
                gtin="0" + product.gtin,
                title=product.title,
                language="en",
                confidence=0.5,
                picture="f" * 64,
            ),
        )
        for product in (juice, milk)
    )
    undecided = Undecided(
        sighting_id=EventId.new(),
        frame_digest="a" * 64,
        intent=Intent.PRICE,
        reason="close",
        choices=choices,
        models=("codes:1", "match:1"),
    )
    glasses = await platform.payer()
    context = {"journeyid": JourneyId.new(), "deviceid": glasses.device_id, "locale": "en-GB", "currency": "EUR"}
    event = new_event("sighting.undecided", undecided, source="/sightings", **context)
    async with platform.worn(glasses) as worn:
        async with AIOKafkaProducer(bootstrap_servers=platform.environment["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
            headers, value = to_kafka(event)
            await producer.send_and_wait(RECOGNITION_RESULTS.name, value, key=glasses.device_id.encode(), headers=headers)
        asked = await worn.expect(lambda message: message["type"] == "choice.offered", 20)
        assert (
            asked["data"]["text"]
            and [choice["picture"] for choice in asked["data"]["choices"]] == [f"/v1/pictures/{'f' * 64}"] * 2
        )
        answer = await worn.choose(asked, 1, timeout_s=20)
        assert answer["type"] == "offers.found" and answer["journeyid"] == event.journeyid
        assert answer["data"]["gtin"] == "0" + milk.gtin
        assert [shown["offer"]["merchant_id"] for shown in answer["data"]["offers"]] == [platform.shop.merchant_id]
        proposed = await worn.request_payment(answer, timeout_s=20)
        assert proposed["type"] == "payment.proposed", proposed
        never_offered = {"offered": asked["data"], "choice": 2}
        sent = await worn.send("choice.made", never_offered, journey=event.journeyid)
        refused = await worn.accepted(sent)
        assert refused["type"] == "gateway.problem" and refused["problem"]["code"] == "event-invalid"
