"""The operator in a drill, who looks at every payment that an answer about another amount has frozen, as
`augenblick payments resolve` does it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from infra.sandbox import books
from schemas.ids import PaymentId
from streams.core.database import Database
from streams.core.handling import transaction
from streams.payments import resolving
from streams.payments.work import PaymentWork

_FROZEN = "SELECT id, frozen_reason FROM payments WHERE frozen_at IS NOT NULL ORDER BY frozen_at"
_QUESTIONS = 20


@dataclass
class Operator:
    """`wrongly_frozen` are sentences: of payments that were announced as paid while they were frozen, that somebody else has
    released, or that were frozen although the provider never told an untruth of its own accord."""

    database: Database
    work: PaymentWork
    released: int = 0
    wrongly_frozen: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    async def release(self, tell: Callable[[str], None]) -> int:
        """Release all that are frozen; returns how many there were."""
        async with self.database.transaction() as connection:
            self.wrongly_frozen += await books.read_paid_while_frozen(connection)
            frozen = (await connection.execute(text(_FROZEN))).all()
            ever = await books.read_ever_frozen(connection)
        self._seen |= {row.id for row in frozen}
        self.wrongly_frozen += [f"{payment_id}: released, and not by the operator" for payment_id in sorted(ever - self._seen)]
        self._seen |= ever
        if frozen:
            tell(f"the operator looks at {len(frozen)} frozen payments")
        for row in frozen:
            await self._release(PaymentId(row.id), row.frozen_reason)
        return len(frozen)

    async def _release(self, payment_id: PaymentId, reason: str) -> None:
        """The provider's answers to the operator are as good and bad as to everybody."""
        for _ in range(_QUESTIONS):
            try:
                resolution = await resolving.ask(self.database, self.work, payment_id)
            except IntegrityError as error:
                # The database has the last word: what it refuses is a fault of ours, and is to be read in the report.
                self.wrongly_frozen.append(f"{payment_id}: the database refuses what follows: {str(error.orig).splitlines()[0]}")
                return
            if not resolution.frozen:
                self.released += 1
                return
            if resolution.outcome is None:
                # No command is running: a notification froze it, and the sandbox's notifications are true.
                self.wrongly_frozen.append(f"{payment_id}: {reason}")
                async with transaction(self.database) as unit:
                    await resolving.acknowledge(unit, payment_id, note="looked at in a drill", by="the drill")
                return
