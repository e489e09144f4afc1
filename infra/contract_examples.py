"""One example of every event in the catalogue, for the documents that are made from it. A journey with its ends: the numbers
are of one glance at a box of pencils."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

from pydantic import BaseModel

from schemas.commerce import ExchangeRate, FoundPayee, Offer, OffersFound, PayeesFound, Product, ShownOffer
from schemas.errors import Problem
from schemas.events import CATALOGUE, Event
from schemas.ids import (
    AccountId,
    AttemptId,
    DeviceId,
    EventId,
    JourneyId,
    MerchantId,
    OfferId,
    OrderId,
    PayeeCodeId,
    PaymentId,
    ProposalId,
)
from schemas.money import Money
from schemas.payments import (
    CartLine,
    CommandResult,
    PaymentApproved,
    PaymentChanged,
    PaymentDue,
    PaymentRequested,
    PaymentState,
    PaymentUpdated,
    PresenceMethod,
    ProposalClosed,
    ProposalDeclined,
    ProposalTerms,
    Proposed,
    ProviderNotified,
    ReceiptClosed,
    WearChanged,
    WearState,
)
from schemas.recognition import (
    Candidate,
    Choice,
    ChoiceMade,
    Code,
    Evidence,
    Intent,
    PayeeCode,
    PayeeScheme,
    PayeesSeen,
    PriceTag,
    Recognition,
    Unclear,
    UnclearReason,
    Undecided,
)

_CAPTURED_AT = datetime(2026, 3, 2, 9, 30, 0, 120_000, UTC)
_GTIN = "04006381333931"
_JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
_DIGEST = sha256(_JPEG).hexdigest()
_SUFFIX = "01kjpk2y2refktk2rfw8ef3y5n"
_JOURNEY = JourneyId(f"jrn_{_SUFFIX}")
_DEVICE = DeviceId(f"dev_{_SUFFIX}")
_MERCHANT = MerchantId(f"mer_{_SUFFIX}")
_OFFER = OfferId(f"off_{_SUFFIX}")
_PROPOSAL = ProposalId(f"prp_{_SUFFIX}")
_PAYMENT = PaymentId(f"pay_{_SUFFIX}")
_ORDER = OrderId(f"ord_{_SUFFIX}")
_ACCOUNT = AccountId(f"acc_{_SUFFIX}")
_ATTEMPT = AttemptId(f"att_{_SUFFIX}")
_SIGHTING = EventId(f"evt_{_SUFFIX}")
_PRICE = Money.of(650, "EUR")
_LINE = CartLine(title="Pencils HB, box of 12", gtin=_GTIN, quantity=1, unit_price=_PRICE, total=_PRICE)


def _offers() -> OffersFound:
    pencils = Product(gtin=_GTIN, product_id="HB-12", title="Bleistifte HB, 12 Stück", language="de", brand="Beispiel")
    offer = Offer(
        shop="catalogue",
        merchant_id=_MERCHANT,
        merchant_name="Buchhandlung am Markt",
        product=pencils,
        price=_PRICE,
        observed_at=_CAPTURED_AT - timedelta(hours=2),
        url="https://shop.example/pencils",
    )
    shown = ShownOffer(
        offer_id=_OFFER,
        offer=offer,
        title="Pencils HB, box of 12",
        title_language="en",
        price_text="€6.50",
        converted=Money.of(755, "USD"),
        converted_text="US$7.55",
        rate=ExchangeRate(source="EUR", target="USD", rate=Decimal("1.1612"), published_on=date(2026, 2, 27)),
        stale=False,
        expires_at=_CAPTURED_AT + timedelta(minutes=5),
    )
    return OffersFound(
        sighting_id=_SIGHTING,
        frame_digest=_DIGEST,
        gtin=_GTIN,
        price_tag=_tag(),
        offers=(shown,),
        text="Pencils HB, box of 12: €6.50 at Buchhandlung am Markt. The label says €6.90.",
        late_shops=("medusa",),
    )


def _tag() -> PriceTag:
    corners = ((120.0, 380.5), (260.0, 382.0), (259.5, 440.0), (119.0, 438.0))
    return PriceTag(price=Money.of(690, "EUR"), confidence=0.97, corners=corners)


def _candidate(product: str, title: str, confidence: float, gtin: str | None = None) -> Candidate:
    return Candidate(
        merchant_id=_MERCHANT,
        product_id=product,
        gtin=gtin,
        title=title,
        language="de",
        confidence=confidence,
        inliers=47,
        outline=((180.0, 92.5), (455.0, 96.0), (452.0, 340.5), (178.0, 336.0)),
        picture=sha256(product.encode()).hexdigest(),
        snapshot=12,
    )


def _undecided() -> Undecided:
    soft, hard = _candidate("2B-12", "Bleistifte 2B, 12 Stück", 0.41), _candidate("HB-12", "Bleistifte HB, 12 Stück", 0.52, _GTIN)
    return Undecided(
        sighting_id=_SIGHTING,
        frame_digest=_DIGEST,
        intent=Intent.PRICE,
        reason="close",
        choices=(Choice(gtin=_GTIN, candidate=hard), Choice(candidate=soft)),
        models=("codes:1", "match:1"),
    )


def _asked() -> Undecided:
    undecided = _undecided()
    titles = ("Pencils HB, box of 12", "Pencils 2B, box of 12")
    choices = tuple(
        choice.model_copy(update={"title": title, "picture": f"/v1/pictures/{choice.candidate.picture}"})
        for choice, title in zip(undecided.choices, titles, strict=True)
        if choice.candidate
    )
    text = f"Which one is it: {titles[0]} or {titles[1]}?"
    return undecided.model_copy(update={"choices": choices, "text": text})


def _proposed() -> Proposed:
    terms = ProposalTerms(
        proposal_id=_PROPOSAL,
        device_id=_DEVICE,
        merchant_id=_MERCHANT,
        payee="Buchhandlung am Markt",
        total=_PRICE,
        cart=(_LINE,),
        text="Pay €6.50 to Buchhandlung am Markt?",
        presence=(PresenceMethod.PRESS, PresenceMethod.NOD),
        nonce="bm90LWEtc2VjcmV0LW5vbmNl",
        expires_at=_CAPTURED_AT + timedelta(seconds=60),
    )
    return Proposed(terms=terms, digest=sha256(b"terms").hexdigest())


def _unclear() -> Unclear:
    return Unclear(
        sighting_id=_SIGHTING,
        frame_digest=_DIGEST,
        intent=Intent.PRICE,
        reason=UnclearReason.NO_CODE,
        hint="Move closer, and look at the barcode.",
    )


def _changed(state: PaymentState) -> PaymentChanged:
    before = PaymentState.CAPTURED if "refunded" in state else PaymentState.SUBMITTING
    refunds = {PaymentState.PARTIALLY_REFUNDED: 100, PaymentState.REFUNDED: _PRICE.minor}
    given_back = Money.of(refunds.get(state, 0), _PRICE.currency)
    return PaymentChanged(
        payment_id=_PAYMENT,
        order_id=_ORDER,
        journey_id=_JOURNEY,
        merchant_id=_MERCHANT,
        state=state,
        previous_state=before,
        total=_PRICE,
        cart=(_LINE,),
        provider="stripe",
        provider_reference="pi_example",
        reason="insufficient_funds" if state is PaymentState.DECLINED else None,
        occurred_at=_CAPTURED_AT + timedelta(seconds=6),
        captured=_PRICE if state in _TAKEN else Money.of(0, _PRICE.currency),
        refunded=given_back,
    )


_TAKEN = {PaymentState.CAPTURED, PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED}


def _command_failed() -> PaymentChanged:
    failed = CommandResult(attempt_id=_ATTEMPT, kind="refund", amount=_PRICE, succeeded=False)
    captured = _changed(PaymentState.CAPTURED)
    return captured.model_copy(
        update={"previous_state": PaymentState.CAPTURED, "reason": "insufficient_balance", "command": failed}
    )


def _data() -> dict[str, BaseModel | bytes]:
    corners = ((212.0, 301.5), (430.0, 298.0), (431.0, 352.0), (213.0, 356.0))
    code = Code(text="4006381333931", format="EAN13", symbology="]E0", corners=corners, gtin=_GTIN)
    payee = PayeeCode(scheme=PayeeScheme.EMVCO, key=sha256(b"payee").hexdigest(), name="BUCHHANDLUNG AM MARKT", currency="EUR")
    states = {f"payment.{state}": state for state in PaymentState}
    changes = {name: _changed(states[name]) for name in CATALOGUE if _is_change(name) and name in states}
    return {
        "sighting.captured": _JPEG,
        "sighting.recognised": Recognition(
            sighting_id=_SIGHTING,
            frame_digest=_DIGEST,
            intent=Intent.PRICE,
            gtin=_GTIN,
            evidence=Evidence.CODE,
            confidence=1.0,
            codes=(code,),
            price_tag=_tag(),
            models=("codes:1", "ocr:1"),
            late_models=("match",),
        ),
        "sighting.undecided": _undecided(),
        "choice.offered": _asked(),
        "choice.made": ChoiceMade(offered=_asked(), choice=0),
        "sighting.unclear": _unclear(),
        "offers.found": _offers(),
        "look.again": _unclear(),
        "payment.requested": PaymentRequested(offer_id=_OFFER, quantity=1),
        "payment.approved": PaymentApproved(proposal_id=_PROPOSAL, approval="eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl"),
        "proposal.declined": ProposalDeclined(proposal_id=_PROPOSAL),
        "wear.changed": WearChanged(state=WearState.DOFFED),
        "payment.proposed": _proposed(),
        "proposal.closed": ProposalClosed(
            proposal_id=_PROPOSAL, state="cancelled", reason="doffed", text="Cancelled: you took the glasses off."
        ),
        "intent.refused": Problem.of("offer-expired", "The offer was good until 09:35.", instance=_SIGHTING),
        "payment.updated": PaymentUpdated(
            payment_id=_PAYMENT,
            proposal_id=_PROPOSAL,
            order_id=_ORDER,
            state=PaymentState.CAPTURED,
            total=_PRICE,
            text="Paid: €6.50 to Buchhandlung am Markt.",
        ),
        "receipt.closed": ReceiptClosed(payment_id=_PAYMENT, entries=6, digest=sha256(b"receipt").hexdigest()),
        "payment.due": PaymentDue(payment_id=_PAYMENT),
        "provider.notified": ProviderNotified(payment_id=_PAYMENT, account_id=_ACCOUNT, event_id="2026112200222"),
        "payees.seen": PayeesSeen(sighting_id=_SIGHTING, frame_digest=_DIGEST, intent=Intent.PAY, payees=(payee,)),
        "payees.found": PayeesFound(
            sighting_id=_SIGHTING,
            payees=(
                FoundPayee(
                    payee_code_id=PayeeCodeId(f"pyc_{_SUFFIX}"),
                    merchant_id=_MERCHANT,
                    name="Buchhandlung am Markt",
                    amount=None,
                    currency="EUR",
                    expires_at=_CAPTURED_AT + timedelta(seconds=120),
                ),
            ),
            text="Pay Buchhandlung am Markt? Say how much.",
        ),
        **changes,
        "payment.command_failed": _command_failed(),
    }


def _is_change(name: str) -> bool:
    return CATALOGUE[name].data is PaymentChanged


def examples() -> dict[str, Event]:
    """By event type. KeyError for a type of the catalogue that has none here."""
    data = _data()
    return {name: _event(name, data[name]) for name in CATALOGUE}


def _event(name: str, data: BaseModel | bytes) -> Event:
    entry = CATALOGUE[name]
    return Event(
        id=_SIGHTING if entry.name == "sighting.captured" else EventId(f"evt_{_SUFFIX[:-1]}p"),
        source=f"urn:augenblick:device:{_DEVICE}" if entry.from_devices else "/example",
        type=name,
        time=_CAPTURED_AT + timedelta(milliseconds=40),
        datacontenttype=entry.content_type,
        dataschema=entry.dataschema,
        data=data if isinstance(data, bytes) else data.model_dump_json(exclude_none=True).encode(),
        journeyid=_JOURNEY,
        deviceid=_DEVICE,
        capturedat=_CAPTURED_AT,
        deadline=_CAPTURED_AT + timedelta(milliseconds=1500),
        region="DE",
        locale="en-GB",
        currency="USD",
        intent=Intent.PRICE,
        framedigest=_DIGEST,
        traceparent=f"00-{_JOURNEY.uuid.hex}-{_JOURNEY.uuid.hex[16:]}-01",
    )
