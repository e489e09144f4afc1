"""The ports: what the streams ask of shops, payment providers, translators and exchange rates.

Connectors are stateless and own no persistence. They never raise for what the other side may answer: answers are values.
What they raise: Retryable (nothing happened), Misconfigured, and Rejected("capability-not-offered").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from schemas.commerce import ExchangeRate, Offer, Order, ProductQuery, Quote, Translation
from schemas.payments import Authorise, Command, Opened, Outcome, ProviderEvent, RefusedByProvider, StatementLine


@dataclass(frozen=True)
class ShopCapabilities:
    """What the shop offers beyond `find`; the rest is refused with Rejected("capability-not-offered").
    `fresh_for`: how long an observed price is good without asking again."""

    fresh_for: timedelta
    quote: bool = False
    place: bool = False
    webhooks: bool = False


class ShopConnector(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> ShopCapabilities: ...

    async def find(self, query: ProductQuery) -> Sequence[Offer]:
        """What the shop (or each of its merchants) asks for the product with this GTIN; for one that only its merchant knows, by
        the merchant's own `product_id`, what this merchant asks. Empty where it has none. Prices in the shop's own currency.
        Raises Retryable where the shop does not answer."""
        ...

    async def quote(self, offer: Offer, quantity: int) -> Quote:
        """The shop's word for `quantity` of `offer`, now. A changed price comes back as the quote's own."""
        ...

    async def place(self, quote: Quote, key: str) -> Order:
        """Order what was quoted, once per `key`. Raises OutcomeUnknown where no answer came."""
        ...

    async def fetch(self, reference: str) -> Order: ...

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[str]:
        """Verifies, then returns the references of the orders to ask about. Raises Rejected("credentials-invalid")."""
        ...


@dataclass(frozen=True)
class PaymentCapabilities:
    """`key_memory`: how long the provider surely recognises an idempotency key, or a reference as one it has seen; zero where it
    may not. Within it a lost submit may be repeated with the same key; after it only `fetch` may tell.

    `reference_is_key`: the reference is the key given to `open`, which calls nobody and never fails but for what the command
    itself says. `ask_every`: how long to wait between questions while the payer is to act. `currencies`: those it takes, None for
    any. `statement_zone`: the time zone of a day in its books, None where `statement` is not offered."""

    commands: frozenset[str]
    key_memory: timedelta
    partial_capture: bool = False
    partial_refund: bool = False
    reference_is_key: bool = False
    ask_every: timedelta = timedelta(seconds=4)
    currencies: frozenset[str] | None = None
    statement_zone: str | None = None


class PaymentConnector(Protocol):
    """One merchant's account with one provider. A connector's folder offers `connect(credentials, *, notify_url, strict=True)`,
    which makes one from what `augenblick connectors add` was given, and refuses with Misconfigured what cannot be right: a
    missing or empty secret, a key of the wrong kind or length, an expired certificate. Without `strict` it takes what is stored
    for an account in use, also where it would not be accepted anew: what the provider renews by itself and has expired since (it
    verifies nothing), and what was not demanded when the account was added."""

    @property
    def name(self) -> str: ...

    @property
    def account(self) -> str:
        """The provider's public name of the account: no secret, shown to operators."""
        ...

    @property
    def capabilities(self) -> PaymentCapabilities: ...

    async def check(self) -> None:
        """A harmless authenticated call. Raises Misconfigured where the credentials are not accepted, Retryable where nobody
        answers."""
        ...

    async def close(self) -> None: ...

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        """The reference under which the payment can be asked for from now on; moves no money. The caller commits it before
        `submit`, so that whatever happens there, `fetch` can tell (docs/adr/0005). Safe to repeat: an opened payment that
        is never submitted is harmless. Raises Retryable where no answer came."""
        ...

    async def submit(self, command: Command, key: str) -> Outcome:
        """Do it, once per `key`. `Authorise.reference` must be set. Never raises for what may be answered: a timeout, a
        5xx, an unreadable, unsigned or undocumented answer is Unknown; amount, currency, reference and account of every answer
        are checked against the command, and what differs is Mismatched with the reason."""
        ...

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        """What has become of it. `expected` is the command it was opened for, and is checked likewise. Unknown where the
        provider does not answer. NotSubmitted also where the provider does not know a reference that is ours to give."""
        ...

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        """Verifies signature, freshness and account over the raw body, then returns what to ask about. Header names may be in
        any case. Raises Rejected("credentials-invalid"), also where no secret is configured, or Rejected("message-malformed")."""
        ...

    async def refresh(self) -> bool:
        """Fetch what notifications are verified with, where the provider changes it from time to time: whoever was refused by
        `parse_webhook` may try once more where this returns True, which is that something is new. Never raises; asks nobody more
        than once a minute, so that forged notifications cannot make it."""
        ...

    def acknowledgement(self) -> tuple[int, str, bytes]:
        """What the provider wants to hear when its notification was taken: HTTP status, media type, body."""
        ...

    async def statement(self, day: date) -> Sequence[StatementLine]:
        """What moved on that day by the provider's own books. Raises Retryable where they cannot be had now, and
        Rejected("capability-not-offered")."""
        ...


class Translator(Protocol):
    @property
    def name(self) -> str: ...

    async def translate(
        self, texts: Sequence[str], source: str, target: str, glossary: Mapping[str, str] | None = None
    ) -> Sequence[Translation]:
        """One translation per text, in order; a text it cannot translate comes back as it is, in its own language.
        `source` and `target` are BCP 47 tags. `glossary` holds terms that must be used. Raises Retryable."""
        ...


class ExchangeRates(Protocol):
    def rate(self, source: str, target: str) -> ExchangeRate | None:
        """The latest published rate, or None where there is none for these currencies."""
        ...
