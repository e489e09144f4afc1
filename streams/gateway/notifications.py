"""POST /v1/notifications/{provider}/{account}: what payment providers say that happened.

verify → insert-or-ignore → acknowledge, in this order; then the payments stage looks at it once. What becomes of a notification:

    bad signature, stale, other account    401, nothing is kept, counted
    unreadable                             400, nothing is kept, counted
    for no payment of ours                 kept as `unmatched`, acknowledged, counted
    repeated                               acknowledged and counted, nothing else
    out of order, or before our answer     no matter: it is a hint to ask the provider, never the answer itself
    about another amount                   the payment is frozen (streams/payments)
"""

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
from streams.payments import accounts, store
from streams.payments.accounts import Account, Accounts

PATH = "/v1/notifications/{provider}/{account_id}"
_SOURCE = "/gateway/notifications"


class Notifications:
    def __init__(self, database: Database, connectors: Accounts) -> None:
        self._database = database
        self._connectors = connectors
        self._group = GroupCommit(database, "notifications")

    def router(self) -> APIRouter:
        router = APIRouter(tags=["providers"])
        router.add_api_route(PATH, self.post, methods=["POST"], summary="Say that something happened", response_model=None)
        return router

    async def post(self, request: Request, provider: str, account_id: str) -> Response:
        """A payment provider's notification, signed as the provider does it. The answer is the provider's own way of hearing that
        it was taken."""
        account = await self._account(provider, account_id)
        connector = self._connectors.connector(account)
        try:
            events = connector.parse_webhook(dict(request.headers), await request.body())
        except Rejected as refusal:
            metrics.count("augenblick.notifications", provider=account.provider, outcome=refusal.problem.code)
            raise
        for event in events:
            outcome = await self._take(account, event)
            metrics.count("augenblick.notifications", provider=account.provider, outcome=outcome)
        return _acknowledged(connector)

    async def _account(self, provider: str, account_id: str) -> Account:
        try:
            async with self._database.transaction() as connection:
                account = await accounts.find(connection, AccountId(account_id))
        except ValueError:
            account = None
        if account is None or account.provider != provider:
            raise Rejected("not-found", "no account is notified here")
        return account

    async def _take(self, account: Account, event: ProviderEvent) -> str:
        """Put it on record, once, and have it looked at. Returns what became of it."""

        async def work(unit: Transaction) -> str:
            payment_id = await store.payment_of_reference(unit.connection, account.id, event.reference)
            if not await store.add_notification(unit.connection, account.id, event, payment_id):
                return "repeated"
            if payment_id is None:
                return "unmatched"
            told = ProviderNotified(payment_id=payment_id, account_id=account.id, event_id=event.event_id)
            journey = await store.journey_of(unit.connection, payment_id)
            notified = new_event("provider.notified", told, source=_SOURCE, journeyid=journey, subject=payment_id)
            unit.publish(notified, key=payment_id)
            return "taken"

        return await self._group.run(work) or "repeated"


def _acknowledged(connector: PaymentConnector) -> Response:
    status, media_type, body = connector.acknowledgement()
    return Response(body, status, media_type=media_type)
