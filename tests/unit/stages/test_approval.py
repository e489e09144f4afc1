"""Approvals in detail: what is signed, by whom, over what, and when."""

from datetime import timedelta
from typing import Any

import pytest

from infra.sandbox.glasses import DeviceKey
from schemas.errors import Rejected
from schemas.ids import AccountId, DeviceId, MerchantId, ProposalId
from schemas.money import Money
from schemas.payments import PaymentPolicy, PresenceMethod, ProposalTerms, WearState
from streams.intents import service
from streams.intents.policy import Rules, Spent
from streams.intents.service import Account, Conditions, Device
from tests.support.approvals import ACCOUNT, DEVICE, DIGEST, FREE, NOW, STORED, TERMS, TOTAL, signed, verify


def code(check: Any) -> str:
    with pytest.raises(Rejected) as refused:
        check()
    return refused.value.problem.code


def test_the_wearers_yes() -> None:
    for method in PresenceMethod:
        assert verify(signed(method)).presence is method


def test_every_term_is_in_the_digest() -> None:
    """Whatever is changed, the yes is to something else."""
    other: dict[str, Any] = {
        "proposal_id": ProposalId.new(),
        "device_id": DeviceId.new(),
        "merchant_id": MerchantId.new(),
        "payee": "Eck1aden",
        "total": Money.of(1591, "EUR"),
        "cart": (),
        "text": TERMS.text + " ",
        "presence": TERMS.presence[:2],
        "nonce": "n" * 32,
        "expires_at": TERMS.expires_at + timedelta(seconds=1),
    }
    assert set(other) == set(ProposalTerms.model_fields)
    digests = {service.proposal_digest(TERMS.model_copy(update={name: value})) for name, value in other.items()}
    assert len(digests | {DIGEST}) == len(other) + 1
    for name, value in other.items():
        altered = TERMS.model_copy(update={name: value})
        assert code(lambda altered=altered: verify(signed(), terms=altered)) == "approval-invalid"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"iat": -6, "exp": 20}, "approval-invalid"),  # signed before the proposal was made
        ({"iat": 6, "exp": 30}, "approval-invalid"),  # signed in the future
        ({"iat": 0, "exp": 61}, "approval-invalid"),
        ({"iat": 0, "exp": 0}, "approval-expired"),
        ({"iat": 0, "exp": -1}, "approval-expired"),
        ({"iat": -5, "exp": 20}, None),
        ({"iat": 5, "exp": 65}, None),
    ],
)
def test_times(changes: dict[str, int], refused: str | None) -> None:
    at = int(NOW.timestamp())
    text = signed(**{name: at + seconds for name, seconds in changes.items()})
    if refused is None:
        assert verify(text).iat == at + changes["iat"]
    else:
        assert code(lambda: verify(text)) == refused


def test_only_the_ways_of_saying_yes_that_were_proposed() -> None:
    terms = TERMS.model_copy(update={"presence": (PresenceMethod.PRESS,)})
    text = signed("voice", digest=service.proposal_digest(terms))
    assert code(lambda: verify(text, terms=terms)) == "approval-invalid"


def test_the_key_of_now_and_no_other() -> None:
    newer = DeviceKey()
    assert code(lambda: verify(signed(), key=newer.public)) == "approval-invalid"
    assert verify(signed(key=newer), key=newer.public)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"revoked": True}, "device-revoked"),
        ({"wear_state": WearState.DOFFED}, "not-worn"),
        ({"wear_state": WearState.LINK_LOST}, "not-worn"),
        ({"payer_provider": None}, "payer-missing"),
        ({"id": DeviceId.new()}, "proposal-unknown"),
    ],
)
def test_who_may_approve(change: dict[str, Any], refused: str) -> None:
    device = Device(**{**vars(DEVICE), **change})
    assert code(lambda: service.may_be_approved(STORED, device, NOW)) == refused
    assert service.may_be_approved(STORED, DEVICE, NOW) is STORED


def test_what_takes_the_money() -> None:
    assert service.account_for(FREE, TOTAL) is ACCOUNT
    assert code(lambda: service.account_for(FREE, Money.of(1, "CNY"))) == "merchant-not-payable"
    assert code(lambda: service.account_for(Conditions(None, Rules()), TOTAL)) == "merchant-not-payable"
    anything = Account(AccountId.new(), "stripe", None)
    assert service.account_for(Conditions(anything, Rules()), Money.of(1, "CNY")) is anything


def paid(conditions: Conditions = FREE, seconds: float = 0, presence: PresenceMethod = PresenceMethod.PRESS) -> Account:
    return service.may_be_paid(STORED, conditions, Spent(), presence, NOW, NOW + timedelta(seconds=seconds))


def test_what_held_when_it_was_proposed_holds_when_it_is_approved() -> None:
    assert paid() is ACCOUNT
    assert code(lambda: paid(seconds=31)) == "intent-stale"
    other = Account(AccountId.new(), "stripe", None)
    assert code(lambda: paid(Conditions(other, Rules()))) == "merchant-not-payable"
    assert code(lambda: paid(Conditions(None, Rules()))) == "merchant-not-payable"
    stricter = PaymentPolicy.model_validate(
        {"limits": [{"currency": "EUR", "presence_above": 1000, "presence": ["voice"]}]}, strict=False
    )
    assert code(lambda: paid(Conditions(ACCOUNT, Rules(merchant=stricter)))) == "approval-invalid"
    assert paid(Conditions(ACCOUNT, Rules(merchant=stricter)), presence=PresenceMethod.VOICE) is ACCOUNT
    lower = PaymentPolicy.model_validate({"limits": [{"currency": "EUR", "per_payment": 1589}]}, strict=False)
    assert code(lambda: paid(Conditions(ACCOUNT, Rules(device=lower)))) == "limit-exceeded"
