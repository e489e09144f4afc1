"""POST /v1/notifications/{provider}/{account}: what payment providers say that happened.

verify → insert-or-ignore → acknowledge, in this order; then the payments stage looks at it once. What becomes of a notification:

    bad signature, stale, other account    401, nothing is kept, counted
    unreadable                             400, nothing is kept, counted
    for no payment of ours                 kept as `unmatched`, acknowledged, counted
    repeated                               acknowledged and counted, nothing else
    out of order, or before our answer     no matter: it is a hint to ask the provider, never the answer itself
    about another amount, a refund that
    nobody asked for, a reversal           the payment is frozen (streams/payments)
    nothing new                            kept as `processed`: its payment's commands have all ended, and it contradicts nothing
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from fastapi import APIRouter, Request
from fastapi.responses import Response

from connectors.ports import PaymentConnector
from schemas.errors import Rejected
from schemas.events import new_event
from schemas.ids import AccountId
from schemas.payments import ProviderEvent, ProviderNotified
from streams.core.database import Database
from streams.core.groups import GroupCommit
from streams.core.outbox import Transaction
from streams.core.telemetry import metrics
from streams.payments import accounts, service, store
from streams.payments.accounts import Account, Accounts
from streams.payments.store import Referred

PATH = "/v1/notifications/{provider}/{account_id}"
_SOURCE = "/gateway/notifications"

# Credentials change rarely: an account is looked up again after so many seconds, and whenever a signature does not fit.
_FRESH_S = 5.0

# A notification often comes just before the provider's answer to our own call, which makes it superfluous once that is on record.
# To look at once would nearly always be too early.
_WAITS_S = (0.08, 0.15, 0.3)


@dataclass(frozen=True)
class _Known:
    account: Account
    read_at: float


class Notifications:
    def __init__(self, database: Database, connectors: Accounts) -> None:
        self._database = database
        self._connectors = connectors
        self._group = GroupCommit(database, "notifications")
        self._known: dict[str, _Known] = {}

    def router(self) -> APIRouter:
        router = APIRouter(tags=["providers"])
        router.add_api_route(PATH, self.post, methods=["POST"], summary="Say that something happened", response_model=None)
        return router

    async def post(self, request: Request, provider: str, account_id: str) -> Response:
        """A payment provider's notification, signed as the provider does it. The answer is the provider's own way of hearing that
        it was taken."""
        account, fresh = await self._account(provider, account_id)
        headers, body = dict(request.headers), await request.body()
        connector = self._connectors.connector(account)
        try:
            events = connector.parse_webhook(headers, body)
        except Rejected:
            # The credentials may have changed here, or what verifies signatures at the provider.
            account = account if fresh else (await self._account(provider, account_id, anew=True))[0]
            changed = self._connectors.connector(account) is not connector
            connector = self._connectors.connector(account)
            try:
                if not changed and not await connector.refresh():
                    raise
                events = connector.parse_webhook(headers, body)
            except Rejected as still:
                metrics.count("augenblick.notifications", provider=account.provider, outcome=still.problem.code)
                raise
        for event in events:
            outcome = await self._take(account, event)
            metrics.count("augenblick.notifications", provider=account.provider, outcome=outcome)
        return _acknowledged(connector)

    async def _account(self, provider: str, account_id: str, *, anew: bool = False) -> tuple[Account, bool]:
        """Also says whether it was read just now."""
        known = self._known.get(account_id)
        if known is not None and known.account.provider == provider and not anew and monotonic() - known.read_at < _FRESH_S:
            return known.account, False
        try:
            async with self._database.transaction() as connection:
                account = await accounts.find(connection, AccountId(account_id))
        except ValueError:
            account = None
        if account is None or account.provider != provider:
            self._known.pop(account_id, None)
            raise Rejected("not-found", "no account is notified here")
        self._known[account_id] = _Known(account, monotonic())
        return account, True

    async def _take(self, account: Account, event: ProviderEvent) -> str:
        """Put it on record, once, and have it looked at. Returns what became of it."""
        for wait in _WAITS_S:
            await asyncio.sleep(wait)
            last = wait == _WAITS_S[-1]
            outcome = await self._group.run(partial(self._keep, account, event, whoever_is_at_work=last))
            if outcome is not None:
                return outcome
        raise AssertionError("unreachable: the last time, it is kept in any case")

    async def _keep(self, account: Account, event: ProviderEvent, unit: Transaction, *, whoever_is_at_work: bool) -> str | None:
        """None: a worker waits for the provider's answer, and it is better to wait for that than to ask once more."""
        found = await store.payment_of_reference(unit.connection, account.id, event.reference)
        if found is None:
            return "unmatched" if await store.add_notification(unit.connection, account.id, event, None) else "repeated"
        if found.at_work and not whoever_is_at_work:
            return None
        processed_at = datetime.now(UTC) if _says_nothing_new(event, found) else None
        if not await store.add_notification(unit.connection, account.id, event, found.payment_id, processed_at=processed_at):
            return "repeated"
        if processed_at is None:
            told = ProviderNotified(payment_id=found.payment_id, account_id=account.id, event_id=event.event_id)
            notified = new_event("provider.notified", told, source=_SOURCE, journeyid=found.journey_id, subject=found.payment_id)
            unit.publish(notified, key=found.payment_id)
        return "taken"


def _says_nothing_new(event: ProviderEvent, payment: Referred) -> bool:
    """Nothing is left to be asked about the payment, and nothing speaks against what our books say of it. All of it was read in
    one moment; a command that begins later is later than the notification, too."""
    if payment.running or payment.frozen or event.kind != "payment" or service.is_to_be_asked_about(event.kind, payment.state):
        return False
    return service.contradiction(event.kind, event.amount, event.note, payment, ordered=True) is None


def _acknowledged(connector: PaymentConnector) -> Response:
    status, media_type, body = connector.acknowledgement()
    return Response(body, status, media_type=media_type)
