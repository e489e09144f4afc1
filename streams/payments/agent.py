"""payments.commands → the provider → payments.events and glasses.answers."""

from connectors import registry
from connectors.registry import StripeAccount, Surroundings
from schemas.events import Event
from schemas.payments import Outcome, PaymentDue
from schemas.topics import PAYMENTS_COMMANDS
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Effect
from streams.core.outbox import Transaction
from streams.core.settings import Settings
from streams.payments.work import PaymentWork, Plan


class Payments:
    def __init__(self, work: PaymentWork) -> None:
        self._work = work

    async def open(self, event: Event, unit: Transaction) -> Plan | None:
        return await self._work.open(event.decode(PaymentDue).payment_id, unit)

    async def call(self, plan: Plan) -> Outcome:
        return await self._work.call(plan)

    async def settle(self, event: Event, plan: Plan, outcome: Outcome, unit: Transaction) -> None:
        await self._work.settle(plan, outcome, unit, event)


def payment_work(parts: Parts) -> PaymentWork:
    """With the payment provider of the settings."""
    provider = parts.settings.payment_provider
    connector = registry.payments(provider, Surroundings(stripe=stripe_account(parts.settings)))
    return PaymentWork(parts.database(), {provider: connector}, parts.sealer())


def stripe_account(settings: Settings) -> StripeAccount:
    key = settings.stripe_api_key
    return StripeAccount(
        api_key=key.get_secret_value() if key else None,
        address=settings.stripe_api_base,
        return_url=settings.stripe_return_url,
    )


async def run(parts: Parts) -> None:
    payments = Payments(payment_work(parts))
    consumer = Consumer(
        name="payments",
        topics=(PAYMENTS_COMMANDS,),
        handling=Effect("payments", parts.database(), open=payments.open, call=payments.call, settle=payments.settle),
        event_types=frozenset({"payment.due"}),
        window=parts.settings.window,
    )
    await run_consumer(consumer, parts)
