"""The only outbound HTTP client. It bounds what a call may cost, and refuses to be led to where it must not go.

- Deadlines for connecting, for each read, and for the whole call; a bounded part of the answer; no redirects, cookies or proxies.
- A name is resolved when it is dialled, every address it has is checked, and one that was checked is dialled: a name that
  answers differently the second time gains nothing. TLS and the Host header keep the name.
- Only https, and only public addresses, unless `allow_private` (development): then also http and this network's, but not
  link-local ones, where most clouds keep a machine's credentials.
- Errors say what may have happened: Retryable before anything was sent, OutcomeUnknown after, Rejected for a refused address.

Each call is a span that names the server and nothing else of the address: paths and queries hold keys now and then.

aiohttp, because a call costs it a tenth of the CPU time that httpx needs (benchmarks/results), and Faust brings it anyway.
"""

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
import httpx
import stamina
from aiohttp.abc import AbstractResolver, ResolveResult
from opentelemetry import propagate, trace
from yarl import URL

from schemas.errors import OutcomeUnknown, Rejected, Retryable

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a host name, as text; OSError where it has none."""

# IANA's special-purpose registries (RFC 6890 and its updates) and what else is not a public host. Written out, because the
# standard library's `is_global` differs between Python's patch releases.
_REFUSED_V4 = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host, unspecified
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's metadata and wire server, on an address that looks public
        "169.254.0.0/16",  # link-local, with most clouds' metadata service
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, with Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: leads to whatever IPv4 address it wraps
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_DAY_S = 86_400.0
_PATIENCE_AT_LEAST = 0.7


def is_public(address: Address) -> bool:
    """Whether a merchant's server may live there. IPv4-mapped and NAT64 addresses are judged by the IPv4 address inside."""
    address = _inside(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    # A scope id names an interface of this machine: link-local by nature.
    if address.scope_id is not None or address not in _GLOBAL_UNICAST_V6:
        return False
    return not any(address in network for network in _REFUSED_V6)


def is_nobodys(address: Address) -> bool:
    """Whether not even a server in development lives there: link-local, multicast or unspecified."""
    address = _inside(address)
    return address.is_link_local or address.is_multicast or address.is_unspecified


def _inside(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


@dataclass(frozen=True)
class Deadlines:
    """In seconds. `read` bounds the wait for each piece of the answer, `total` the whole call with its name lookup; up to three
    tenths less by chance."""

    connect: float = 5.0
    read: float = 15.0
    total: float = 20.0


@dataclass(frozen=True)
class Answer:
    """What came back, whatever its status. `body` holds the first bytes only where `truncated`."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    truncated: bool

    @property
    def excerpt(self) -> str:
        """The first 1000 characters, fit to be stored: no NUL, which PostgreSQL's text does not take."""
        return self.body[:4000].decode("utf-8", "replace").replace("\x00", "\ufffd")[:1000]

    @property
    def retry_after_s(self) -> float | None:
        """The Retry-After header in seconds from now, at most a day, if there is one that can be read."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text), _DAY_S)
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _DAY_S)


class HttpClient:
    """One per process; keeps connections open. `resolve` and `tls` are for tests and for operators with a CA of their own."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        deadlines: Deadlines | None = None,
        max_response_bytes: int = 256 * 1024,
        max_connections: int = 100,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._deadlines = deadlines or Deadlines()
        self._max_response_bytes = max_response_bytes
        # First come, first served: aiohttp's own limit lets who has a connection take it again, and others wait for ever.
        self._turns = asyncio.Semaphore(max_connections)
        self._resolver = _GuardedResolver(resolve or _resolve, allow_private=allow_private)
        self._tls = tls
        self._opened: aiohttp.ClientSession | None = None
        self._tracer = trace.get_tracer(__name__)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        """Opened at the first call, for it belongs to the loop that makes it."""
        if self._opened is None:
            watching = aiohttp.TraceConfig()
            watching.on_request_headers_sent.append(_note_that_it_was_sent)
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    use_dns_cache=False,
                    ssl=self._tls or _public_tls(),
                    limit=0,
                    keepalive_timeout=4.0,  # before servers that keep them for five seconds hang up
                ),
                # A proxy from the environment would do the dialling, out of the guard's sight.
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Compressed answers could grow without bound when they are opened.
                auto_decompress=False,
                headers={"User-Agent": "Augenblick", "Accept": "*/*", "Accept-Encoding": "identity"},
                skip_auto_headers=("Content-Type",),
                trace_configs=[watching],
            )
            # Who may be asked twice is decided in `request` alone. aiohttp has no public way to say so.
            self._opened._retry_connection = False  # noqa: SLF001
        return self._opened

    async def check(self, url: str) -> None:
        """Whether `url` would be dialled, without dialling it: for the moment an address is entered. It is checked again at
        every call. Raises Rejected("endpoint-address-refused"), or Retryable where the name does not resolve."""
        target = self._target(url)
        host = str(target.host)
        try:
            async with asyncio.timeout(self._deadlines.connect):
                await self._resolver.resolve(host, target.port or 443)
        except (OSError, TimeoutError):
            raise Retryable(f"The name {host} could not be resolved.") from None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        deadlines: Deadlines | None = None,
        repeatable: bool = False,
    ) -> Answer:
        """Every status is an answer, 5xx and redirects too. Only a `repeatable` call (reading, or with an idempotency key)
        is tried again, up to twice, after a connection failure, a lost answer, 429, 502, 503 or 504.

        Raises Retryable (nothing was sent), OutcomeUnknown (it may have arrived) or Rejected("endpoint-address-refused")."""
        target = self._target(url)
        limits = deadlines or self._deadlines
        if not repeatable:
            return await self._once(method, target, headers, content, limits)
        try:
            async for attempt in stamina.retry_context(
                on=(Retryable, OutcomeUnknown, _AskedToWait), attempts=3, timeout=limits.total, wait_initial=0.1, wait_max=2.0
            ):
                with attempt:
                    answer = await self._once(method, target, headers, content, limits)
                    if answer.status in {429, 502, 503, 504}:
                        raise _AskedToWait(answer)
        except _AskedToWait as asked:
            return asked.answer
        return answer

    async def post(
        self, url: str, content: bytes, *, headers: Mapping[str, str] | None = None, deadlines: Deadlines | None = None
    ) -> Answer:
        """POST once; see `request`."""
        return await self.request("POST", url, headers=headers, content=content, deadlines=deadlines)

    def _target(self, url: str) -> URL:
        try:
            # What is written as an address goes out as it is: it may be signed. Anything else is made one.
            target = URL(url, encoded=url.isascii() and url.isprintable() and " " not in url)
            host, _ = target.host or "", target.port
        except (ValueError, TypeError, AttributeError):
            raise Rejected("endpoint-address-refused", "The address is not a URL.") from None
        allowed = {"https", "http"} if self._allow_private else {"https"}
        # A percent sign is in no host name, but in an address on one interface only.
        if target.scheme not in allowed or not host or "%" in host or " " in host:
            raise Rejected(
                "endpoint-address-refused", f"The address must begin with {' or '.join(sorted(allowed))}:// and a host name."
            )
        if target.user is not None or target.password is not None:
            raise Rejected("endpoint-address-refused", "The address must not contain a user name or password.")
        self._resolver.check_literal(host)  # aiohttp dials these without asking the resolver
        return target

    async def _once(
        self, method: str, target: URL, headers: Mapping[str, str] | None, content: bytes | None, limits: Deadlines
    ) -> Answer:
        attributes = {"http.request.method": method, "server.address": str(target.host), "url.full": f"{target.origin()}/"}
        with self._tracer.start_as_current_span(
            method, kind=trace.SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            sending = dict(headers or {})
            propagate.inject(sending)
            try:
                answer = await self._exchange(method, target, sending, content, limits)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(trace.Status(trace.StatusCode.ERROR))
                raise
            span.set_attribute("http.response.status_code", answer.status)
            return answer

    async def _exchange(
        self, method: str, target: URL, headers: dict[str, str], content: bytes | None, limits: Deadlines
    ) -> Answer:
        progress = _Progress()
        # Calls that a server leaves hanging together do not all end together: what comes after them would be a burst.
        share = random.uniform(_PATIENCE_AT_LEAST, 1.0)  # noqa: S311 (no secret)
        try:
            async with (
                asyncio.timeout(share * limits.total),
                self._turns,
                self._session().request(
                    method,
                    target,
                    headers=headers,
                    data=content,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect, sock_read=share * limits.read),
                    trace_request_ctx=progress,
                ) as response,
            ):
                body = await self._read(response)
        except aiohttp.InvalidURL:
            raise Rejected("endpoint-address-refused", f"{target.host} is no host's name or address.") from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # of which TimeoutError is one
            what = f"{target.host}: {_in_words(error)}"
            if progress.sent:
                raise OutcomeUnknown(f"No complete answer from {what}.") from None
            raise Retryable(f"No connection to {what}.") from None
        kept = body[: self._max_response_bytes]
        return Answer(response.status, response.headers, kept, truncated=len(kept) < len(body))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """One byte more than the limit tells that there was more; the rest is never read."""
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > self._max_response_bytes:
                response.close()
                break
        return bytes(body[: self._max_response_bytes + 1])


@dataclass
class _Progress:
    sent: bool = False


async def _note_that_it_was_sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.sent = True


@cache
def _public_tls() -> ssl.SSLContext:
    """Shared by all clients: to read the certificates of the public authorities takes longer than most calls."""
    return httpx.create_ssl_context(trust_env=False)


def direct_client() -> httpx.AsyncClient:
    """A plain client for an SDK that talks to an address an operator chose: no guard, but no proxies from the environment either,
    which would not reach a server on this machine."""
    return httpx.AsyncClient(trust_env=False, follow_redirects=False)


def nothing_was_sent(error: BaseException | None) -> bool:
    """Whether an httpx error that an SDK reports as the cause of its own happened before the request left."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


class _AskedToWait(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "it took too long"),
    (aiohttp.ClientConnectorDNSError, "its name does not resolve"),
    (aiohttp.ClientSSLError, "it is not vouched for by a certificate we trust"),
    (aiohttp.ClientConnectorError, "it does not take connections"),
    (aiohttp.ClientResponseError, "what it says is no HTTP"),
    (aiohttp.ClientPayloadError, "it hung up halfway"),
    (aiohttp.ServerDisconnectedError, "it hung up"),
)


def _in_words(error: Exception) -> str:
    """Ours alone: aiohttp's quote the whole address, with what is secret in it, and what the other side has said."""
    return next((words for kind, words in _WORDS if isinstance(error, kind)), type(error).__name__)


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class _GuardedResolver(AbstractResolver):
    """Tells only addresses that were checked; what it tells is dialled at once, and not kept."""

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """The host's addresses, all of them allowed: one bad one among good ones is a trick."""
        try:
            found = [ip_address(text) for text in await self._resolve(host, port)]
        except UnicodeError as error:
            raise OSError(f"the name does not resolve ({error})") from error
        if not found:
            raise OSError("the name has no address")
        self._check(host, found)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in dict.fromkeys(found)
        ]

    def check_literal(self, host: str) -> None:
        """Refuses a host that is itself an address nobody may dial."""
        try:
            address = ip_address(host)
        except ValueError:
            if ":" in host or host.replace(".", "").isdigit():
                raise Rejected("endpoint-address-refused", f"{host} is neither a name nor a whole address.") from None
            return
        self._check(host, [address])

    def _check(self, host: str, addresses: Sequence[Address]) -> None:
        allowed = all(not is_nobodys(address) if self._allow_private else is_public(address) for address in addresses)
        if not allowed:
            # Which address it was would tell a stranger about the network inside.
            wanted = "an address that may be dialled" if self._allow_private else "a public address"
            raise Rejected("endpoint-address-refused", f"{host} is not, or not only, at {wanted}.")

    async def close(self) -> None:
        """Nothing is open."""
