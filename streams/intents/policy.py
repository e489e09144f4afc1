"""How much may be paid, in which currencies, after how long and by which yes: the merchant's rules and the device's. Where both
have some, both hold. Plain functions on plain values; amounts are minor units of the payment's currency."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.errors import Rejected
from schemas.money import Money
from schemas.payments import Limit, PaymentPolicy, PresenceMethod

DAY = timedelta(hours=24)
"""Over which `per_day` counts: any 24 hours, not a calendar's day."""

CONFIRM_AFTER = timedelta(seconds=30)
"""How old an intent may be where nobody has set anything else."""

CLOCK_SKEW = timedelta(seconds=5)
"""By how much a device's clock may be ahead of ours."""


@dataclass(frozen=True)
class Rules:
    merchant: PaymentPolicy | None = None
    device: PaymentPolicy | None = None

    @property
    def capture(self) -> bool:
        """Whether the money is taken at once; else it is reserved until the merchant takes it."""
        return self.merchant is None or self.merchant.capture


@dataclass(frozen=True)
class Spent:
    """What the last 24 hours' payments cost, in the payment's currency; 0 where nobody limits it."""

    merchant: int = 0
    device: int = 0


def limit(policy: PaymentPolicy | None, currency: str) -> Limit | None:
    """The policy's limit for the currency, if it has one."""
    return next((limit for limit in policy.limits if limit.currency == currency), None) if policy else None


def limits_days(policy: PaymentPolicy | None, currency: str) -> bool:
    """Whether what was spent before matters."""
    found = limit(policy, currency)
    return found is not None and found.per_day is not None


def check_age(rules: Rules, said_at: datetime, now: datetime) -> None:
    """`said_at`: when the wearer said it, by the device's clock. Raises Rejected("intent-stale") for what must be said again, and
    Rejected("event-in-future") for what no clock can have said yet."""
    if said_at > now + CLOCK_SKEW:
        raise Rejected("event-in-future", f"the wearer's intent lies more than {CLOCK_SKEW.seconds} s ahead of our clock")
    allowed = confirm_after(rules)
    if now - said_at > allowed:
        raise Rejected("intent-stale", f"the wearer said so more than {allowed.total_seconds():g} s ago")


def confirm_after(rules: Rules) -> timedelta:
    """The shortest time anybody has set."""
    policies = (policy for policy in (rules.merchant, rules.device) if policy is not None)
    seconds = [policy.confirm_after_s for policy in policies if policy.confirm_after_s is not None]
    return timedelta(seconds=min(seconds)) if seconds else CONFIRM_AFTER


def check_amount(rules: Rules, total: Money, spent: Spent) -> None:
    """Raises Rejected("limit-exceeded"). What was spent so far is not told: a merchant's turnover is nobody else's business."""
    for whose, policy, before in (("merchant", rules.merchant, spent.merchant), ("device", rules.device, spent.device)):
        if policy is None:
            continue
        allowed = limit(policy, total.currency)
        if allowed is None:
            if not policy.other_currencies:
                raise Rejected("limit-exceeded", f"by the {whose}'s rules nothing is paid in {total.currency}")
            continue
        if allowed.per_payment is not None and total.minor > allowed.per_payment:
            most = Money.of(allowed.per_payment, total.currency)
            raise Rejected("limit-exceeded", f"by the {whose}'s rules a payment is at most {most}")
        if allowed.per_day is not None and before + total.minor > allowed.per_day:
            raise Rejected("limit-exceeded", f"it is more than the {whose}'s rules allow within 24 hours")


def presence(rules: Rules, total: Money) -> tuple[PresenceMethod, ...]:
    """The ways of saying yes that count for this amount. Raises Rejected("limit-exceeded") where none does."""
    demanded = [set(limit.presence) for limit in _limits(rules, total.currency) if _demands(limit, total)]
    methods = tuple(method for method in PresenceMethod if all(method in accepted for accepted in demanded))
    if not methods:
        raise Rejected("limit-exceeded", "for this amount the merchant and the device accept no common way of saying yes")
    return methods


def check_presence(rules: Rules, total: Money, used: PresenceMethod) -> None:
    """Raises Rejected("approval-invalid") where the rules have become stricter than the proposal was."""
    if used not in presence(rules, total):
        raise Rejected("approval-invalid", f"the approval does not count: {used} is not accepted for this amount any more")


def _limits(rules: Rules, currency: str) -> Iterator[Limit]:
    for policy in (rules.merchant, rules.device):
        if (found := limit(policy, currency)) is not None:
            yield found


def _demands(limit: Limit, total: Money) -> bool:
    return limit.presence_above is not None and total.minor > limit.presence_above
