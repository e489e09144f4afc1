"""What the console makes of a journey's rows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.ids import DeadLetterId, DeviceId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import PaymentState
from streams.console import service
from streams.console.service import Hop, Journey, Outcome, Payment, Proposal, Search, ShownOffer, assemble

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
PRICE = Money.of(650, "EUR")


def later(ms: float) -> datetime:
    return AT + timedelta(milliseconds=ms)


def hop(name: str, start: float, ms: float, parent: str | None = None, attributes: dict[str, Any] | None = None) -> Hop:
    return Hop(f"{name}@{start}", parent, name, "offers", later(start), ms, failed=False, attributes=attributes or {})


def told(type: str, start: float = 40) -> Hop:
    return hop(service.ANSWER, start, 3, attributes={"cloudevents.event_type": type})


def offer(id: str = "off_1", title: str = "Pencils", captured_at: datetime | None = AT) -> ShownOffer:
    return ShownOffer(id, "dev_1", title, "04006381333931", PRICE, captured_at)


def proposal(state: str = "open", id: str = "prp_1", offer_id: str = "off_1", reason: str | None = None) -> Proposal:
    return Proposal(id, offer_id, "dev_1", state, reason, PRICE, later(2000), later(60_000))


def payment(state: str = "captured", proposal_id: str = "prp_1", captured_at: datetime | None = None) -> Payment:
    return Payment(
        "pay_1",
        "ord_1",
        proposal_id,
        "dev_1",
        "Shop",
        state,
        None,
        PRICE,
        "stripe",
        None,
        later(3000),
        later(4000),
        captured_at,
        refunded=PRICE * 0,
        frozen_reason=None,
    )


def journey(
    hops: list[Hop] | None = None,
    offers: list[ShownOffer] | None = None,
    proposals: list[Proposal] | None = None,
    payments: list[Payment] | None = None,
    now: datetime = AT + timedelta(minutes=5),
) -> Journey:
    made = datetime.fromtimestamp(AT.timestamp(), UTC)
    id = JourneyId.from_uuid(service.first_dead_letter_id(made).uuid)
    return assemble(
        id, hops=hops or [], offers=offers or [], proposals=proposals or [], payments=payments or [], dead_letters=0, now=now
    )


@pytest.mark.parametrize("state", list(PaymentState))
def test_every_state_of_a_payment_is_an_outcome(state: PaymentState) -> None:
    assert journey(payments=[payment(state)]).outcome in Outcome


def test_how_journeys_end() -> None:
    glance = hop(service.GLANCE, 2, 5)
    assert journey([glance], [offer()], [proposal("approved")], [payment()]).outcome is Outcome.PAID
    assert journey([glance], [offer()], [proposal("cancelled", reason="doffed")]).outcome is Outcome.CANCELLED
    assert journey([glance], [offer()], [proposal("cancelled", reason="doffed")]).reason == "doffed"
    assert journey([glance], [offer()], [proposal()], now=later(5000)).outcome is Outcome.PROPOSED
    assert journey([glance], [offer()], [proposal()]).outcome is Outcome.EXPIRED
    assert journey([glance, told("offers.found")], [offer()]).outcome is Outcome.ANSWERED
    assert journey([glance, told("offers.found")]).reason == "no_offer"
    payees = journey([glance, told("payees.found")])
    assert (payees.outcome, payees.reason) == (Outcome.ANSWERED, None)
    assert journey([glance, told("look.again")]).outcome is Outcome.LOOK_AGAIN
    assert journey([glance, told("intent.refused")]).outcome is Outcome.REFUSED
    assert journey([glance]).outcome is Outcome.NO_ANSWER
    assert journey([glance], now=later(100)).outcome is Outcome.UNDER_WAY
    assert journey().outcome is Outcome.NO_ANSWER


def test_the_answer_is_measured_from_the_capture_to_the_end_of_the_first_answers_push() -> None:
    hops = [hop(service.GLANCE, 12, 5), told("payment.proposed", 30), told("offers.found", 50), told("offers.found", 90)]
    assert journey(hops, [offer()]).glance_to_answer_ms == 53
    assert journey(hops).glance_to_answer_ms == 41  # no row says when the frame was captured: the root span is the beginning
    assert journey([hop(service.ANSWER, 20, 2)]).glance_to_answer_ms == 22  # no root span either: the id's own time
    assert journey([hop(service.GLANCE, 12, 5)]).glance_to_answer_ms is None


def test_paid_is_measured_to_the_moment_of_capture() -> None:
    assert journey([], [offer()], [proposal()], [payment(captured_at=later(4321))]).glance_to_paid_ms == 4321
    assert journey([], [offer()], [proposal()], [payment("declined")]).glance_to_paid_ms is None


def test_the_product_is_the_one_that_was_paid_for() -> None:
    offers = [offer("off_1", "Pencils"), offer("off_2", "Tea")]
    assert journey([], offers).product == "Pencils"
    assert journey([], offers, [proposal("cancelled", "prp_2", "off_2")]).product == "Tea"
    proposals = [proposal("approved", "prp_1", "off_1"), proposal("cancelled", "prp_2", "off_2")]
    assert journey([], offers, proposals, [payment()]).product == "Pencils"


def test_the_slowest_hop_is_counted_without_those_below_it() -> None:
    parent = hop("process", 0, 100)
    children = [hop("POST", 10, 40, parent.span_id), hop("POST", 30, 30, parent.span_id), hop("send", 95, 50, parent.span_id)]
    assert service.own_ms(parent, [parent, *children]) == 45
    assert journey([parent, *children]).slowest_hop == (children[2], 50)
    assert journey().slowest_hop is None


def test_pauses_are_cut_out_of_the_waterfall() -> None:
    hops = [hop("a", 0, 100), hop("b", 50, 20), hop("c", 4100, 100)]
    a, b, c = service.waterfall(AT, hops)
    assert (a.left, a.width, a.pause_ms) == (0, 500, None)
    assert (b.left, b.width, b.pause_ms) == (250, 100, None)
    assert (c.left, c.width, c.pause_ms) == (500, 500, 4000)
    assert c.offset_ms == 4100
    assert service.waterfall(AT, []) == []


def test_every_bar_can_be_seen_and_lies_within() -> None:
    for bar in service.waterfall(AT, [hop("long", 0, 100_000), hop("short", 99_999, 0.001), hop("none", 100_000, 0)]):
        assert bar.width >= 2
        assert bar.left + bar.width <= service.WIDTH + 0.1


def test_only_attributes_of_known_names_are_shown() -> None:
    shown = hop("POST", 0, 1, attributes={"http.response.status_code": 200, "url.full": "https://x/?key=secret"}).shown_attributes
    assert shown == {"http.response.status_code": 200}


def test_dead_letters_are_found_by_time_through_their_ids() -> None:
    before, now = DeadLetterId.new(), datetime.now(UTC)
    assert (
        service.first_dead_letter_id(now - timedelta(seconds=1))
        < before
        < service.first_dead_letter_id(now + timedelta(seconds=1))
    )
    assert abs(service.made_at(before) - now) < timedelta(seconds=1)


def test_what_can_be_searched_for() -> None:
    journey_id, device, paid, order = JourneyId.new(), DeviceId.new(), PaymentId.new(), OrderId.new()
    for text, expected in (
        (f" {journey_id} ", Search("journey", journey_id)),
        (journey_id[:12], Search("journey", journey_id[:12])),
        (journey_id.uuid.hex.upper(), Search("journey", journey_id)),
        (device, Search("device", device)),
        (paid, Search("payment", paid)),
        (order, Search("order", order)),
        ("4006381333931", Search("gtin", "04006381333931")),
        ("40063812", Search("gtin", "00000040063812")),
        ("pay_nonsense", None),
        ("jrn_%", None),
        ("jrn_" + "z" * 27, None),
        ("123", None),
        ("Bleistift", None),
        ("", None),
    ):
        assert service.parse_search(text) == expected, text


def test_the_flow_counts_each_stages_own_hops() -> None:
    counted = service.Counted(
        by_name={
            "glance": 5,
            "receive payment.approved": 2,
            "push glasses.answers": 4,
            "process glasses.sightings": 5,
            "POST": 9,
        },
        failed_by_name={"process glasses.sightings": 2},
        dead_by_topic={"glasses.sightings": 1},
        complete=True,
    )
    stages = {now.stage.name: now for now in service.flow(counted)}
    assert list(stages) == ["gateway", "sightings", "offers", "intents", "payments", "webhooks"]
    assert (stages["gateway"].events, stages["gateway"].failed) == (11, 0)
    assert (stages["sightings"].events, stages["sightings"].failed, stages["sightings"].dead_letters) == (5, 2, 1)
    assert stages["payments"].events == 0
