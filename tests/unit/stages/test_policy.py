"""What the merchant's and the device's rules allow: both hold."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import Rejected
from schemas.money import Money
from schemas.payments import Limit, PaymentPolicy, PresenceMethod
from streams.intents import policy
from streams.intents.policy import Rules, Spent

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PRESS, VOICE, NOD = PresenceMethod.PRESS, PresenceMethod.VOICE, PresenceMethod.NOD


def euros(**limit: object) -> PaymentPolicy:
    return PaymentPolicy(limits=(Limit.model_validate({"currency": "EUR", **limit}),))


def refusal(check: object, *arguments: object) -> str:
    with pytest.raises(Rejected) as refused:
        check(*arguments)  # type: ignore[operator]
    return refused.value.problem.code


@pytest.mark.parametrize("whose", ["merchant", "device"])
def test_a_limit_per_payment_is_the_last_amount_that_goes(whose: str) -> None:
    rules = Rules(**{whose: euros(per_payment=5000)})
    policy.check_amount(rules, Money.of(5000, "EUR"), Spent())
    assert refusal(policy.check_amount, rules, Money.of(5001, "EUR"), Spent()) == "limit-exceeded"
    policy.check_amount(rules, Money.of(5001, "SEK"), Spent())


@pytest.mark.parametrize("whose", ["merchant", "device"])
def test_a_limit_per_day_counts_what_was_spent_before(whose: str) -> None:
    rules = Rules(**{whose: euros(per_day=10_000)})
    policy.check_amount(rules, Money.of(1000, "EUR"), Spent(**{whose: 9000}))
    assert refusal(policy.check_amount, rules, Money.of(1001, "EUR"), Spent(**{whose: 9000})) == "limit-exceeded"
    other = "device" if whose == "merchant" else "merchant"
    policy.check_amount(rules, Money.of(1001, "EUR"), Spent(**{other: 9000}))


def test_a_merchants_turnover_is_not_told() -> None:
    with pytest.raises(Rejected) as refused:
        policy.check_amount(Rules(merchant=euros(per_day=10_000)), Money.of(1001, "EUR"), Spent(merchant=9123))
    assert not any(digits in refused.value.problem.model_dump_json() for digits in ("9123", "91.23", "100.00", "10000", "877"))


def test_other_currencies_may_be_refused() -> None:
    only_euros = PaymentPolicy(limits=(Limit(currency="EUR"),), other_currencies=False)
    policy.check_amount(Rules(device=only_euros), Money.of(10**9, "EUR"), Spent())
    assert refusal(policy.check_amount, Rules(device=only_euros), Money.of(1, "SEK"), Spent()) == "limit-exceeded"
    assert refusal(policy.check_amount, Rules(merchant=only_euros), Money.of(1, "SEK"), Spent()) == "limit-exceeded"
    nothing = PaymentPolicy(other_currencies=False)
    assert refusal(policy.check_amount, Rules(device=nothing), Money.of(1, "EUR"), Spent()) == "limit-exceeded"


def test_a_way_of_saying_yes_is_demanded_above_an_amount() -> None:
    rules = Rules(merchant=euros(presence_above=2500, presence=(PRESS, VOICE)))
    assert policy.presence(rules, Money.of(2500, "EUR")) == tuple(PresenceMethod)
    assert policy.presence(rules, Money.of(2501, "EUR")) == (PRESS, VOICE)
    assert policy.presence(rules, Money.of(2501, "SEK")) == tuple(PresenceMethod)
    policy.check_presence(rules, Money.of(2500, "EUR"), NOD)
    assert refusal(policy.check_presence, rules, Money.of(2501, "EUR"), NOD) == "approval-invalid"


def test_what_both_accept_counts() -> None:
    merchant, device = euros(presence_above=0, presence=(PRESS, VOICE)), euros(presence_above=100, presence=(VOICE, NOD))
    assert policy.presence(Rules(merchant, device), Money.of(50, "EUR")) == (PRESS, VOICE)
    assert policy.presence(Rules(merchant, device), Money.of(101, "EUR")) == (VOICE,)
    neither = Rules(euros(presence_above=0, presence=(PRESS,)), euros(presence_above=0, presence=(NOD,)))
    assert refusal(policy.presence, neither, Money.of(1, "EUR")) == "limit-exceeded"


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [
        (Rules(), 30),
        (Rules(PaymentPolicy(), PaymentPolicy()), 30),
        (Rules(merchant=PaymentPolicy(confirm_after_s=90)), 90),
        (Rules(PaymentPolicy(confirm_after_s=90), PaymentPolicy(confirm_after_s=10)), 10),
        (Rules(PaymentPolicy(confirm_after_s=3), PaymentPolicy()), 3),
    ],
)
def test_an_intent_grows_old(rules: Rules, seconds: int) -> None:
    policy.check_age(rules, NOW - timedelta(seconds=seconds), NOW)
    assert refusal(policy.check_age, rules, NOW - timedelta(seconds=seconds, milliseconds=1), NOW) == "intent-stale"


def test_a_clock_may_be_a_little_ahead() -> None:
    policy.check_age(Rules(), NOW + timedelta(seconds=5), NOW)
    assert refusal(policy.check_age, Rules(), NOW + timedelta(seconds=5, milliseconds=1), NOW) == "event-in-future"


def test_the_merchant_says_whether_money_is_only_reserved() -> None:
    assert Rules().capture
    assert Rules(device=PaymentPolicy(capture=False)).capture
    assert not Rules(merchant=PaymentPolicy(capture=False)).capture


def test_a_currency_has_one_limit() -> None:
    with pytest.raises(ValidationError, match="one currency"):
        PaymentPolicy(limits=(Limit(currency="EUR"), Limit(currency="EUR", per_day=1)))


LIMITS = st.builds(
    Limit,
    currency=st.just("EUR"),
    per_payment=st.none() | st.integers(1, 1000),
    per_day=st.none() | st.integers(1, 1000),
    presence_above=st.none() | st.integers(0, 1000),
    presence=st.sets(st.sampled_from(PresenceMethod), min_size=1).map(tuple),
)
POLICIES = st.none() | st.builds(PaymentPolicy, limits=st.lists(LIMITS, max_size=1).map(tuple), other_currencies=st.booleans())


@given(POLICIES, POLICIES, st.integers(1, 1200), st.integers(0, 1200), st.integers(0, 1200))
def test_both_together_allow_only_what_each_allows_alone(
    merchant: PaymentPolicy | None, device: PaymentPolicy | None, minor: int, merchants: int, devices: int
) -> None:
    total, spent = Money.of(minor, "EUR"), Spent(merchants, devices)

    def allowed(rules: Rules) -> set[PresenceMethod]:
        try:
            policy.check_amount(rules, total, spent)
            return set(policy.presence(rules, total))
        except Rejected as refusal:
            assert refusal.problem.code == "limit-exceeded"
            return set()

    assert allowed(Rules(merchant, device)) == allowed(Rules(merchant=merchant)) & allowed(Rules(device=device))
