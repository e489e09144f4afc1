"""A payment provider that says what the test wants, with books the test writes in. It takes the place of a connector's folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from pydantic import Field, SecretStr

from connectors.credentials import Credentials, parse
from connectors.ports import PaymentCapabilities
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.payments import (
    Authorise,
    Cancel,
    Cancelled,
    Command,
    NotSubmitted,
    Opened,
    Outcome,
    ProviderEvent,
    Refund,
    StatementLine,
    Succeeded,
)

Answer = Callable[[Command], Outcome]


def does_it(command: Command) -> Outcome:
    if isinstance(command, Cancel):
        return Cancelled(reference=command.reference)
    captured = command.capture if isinstance(command, Authorise) else True
    total = command.total if isinstance(command, Authorise) else command.amount
    return Succeeded(reference=command.reference, total=total, captured=captured)


@dataclass
class Books:
    """Of one account. `statements`: by day; a day without one is empty, unless `unavailable`."""

    submit: Answer = does_it
    fetch: Answer = does_it
    statements: dict[date, list[StatementLine]] = field(default_factory=dict)
    unavailable: set[date] = field(default_factory=set)
    refuses: bool = False
    notify_url: str | None = None
    asked_for: list[date] = field(default_factory=list)
    submitted: list[Command] = field(default_factory=list)


BOOKS: dict[str, Books] = {}
"""By the account's name at the provider."""


class InventedCredentials(Credentials):
    api_key: SecretStr = Field(min_length=8)
    account: str
    certificate: str | None = None


class InventedConnector:
    name = "invented"
    capabilities = PaymentCapabilities(
        commands=frozenset({"authorise", "capture", "cancel", "refund"}),
        key_memory=timedelta(hours=1),
        partial_capture=True,
        partial_refund=True,
        statement_zone="Asia/Shanghai",
    )

    def __init__(self, account: str) -> None:
        self.account = account
        self.books = BOOKS.setdefault(account, Books())

    async def check(self) -> None:
        if self.books.refuses:
            raise Misconfigured("the invented provider does not accept `api_key`")

    async def close(self) -> None: ...

    async def open(self, command: Authorise, key: str) -> Opened:
        return Opened(reference=f"inv_{command.payment_id}")

    async def submit(self, command: Command, key: str) -> Outcome:
        self.books.submitted.append(command)
        return self.books.submit(command)

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        # As a provider does: what was never submitted is not there; a refund is looked for among those it made.
        if isinstance(expected, Refund) and self.books.fetch is does_it and expected not in self.books.submitted:
            return NotSubmitted(reference=reference)
        return self.books.fetch(expected.model_copy(update={"reference": reference}))

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        raise Rejected("credentials-invalid", "nothing is ever signed")

    async def refresh(self) -> bool:
        return False

    def acknowledgement(self) -> tuple[int, str, bytes]:
        return 200, "text/plain", b"ok"

    async def statement(self, day: date) -> Sequence[StatementLine]:
        self.books.asked_for.append(day)
        if day in self.books.unavailable:
            raise Retryable("the statement is not made yet")
        return self.books.statements.get(day, [])


def connect(credentials: Mapping[str, str], *, notify_url: str | None = None, strict: bool = True) -> InventedConnector:
    connector = InventedConnector(parse(InventedCredentials, "invented", credentials).account)
    connector.books.notify_url = notify_url
    return connector
