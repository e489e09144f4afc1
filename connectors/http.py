"""The only outbound HTTP client. It bounds what a call may cost, and refuses to be led to where it must not go.

- Deadlines for connecting, for each read, and for the whole call; a bounded part of the answer; no redirects, cookies or proxies.
- A name is resolved when it is dialled, every address it has is checked, and one that was checked is dialled: a name that
  answers differently the second time gains nothing. TLS and the Host header keep the name.
- Only https, and only public addresses, unless `allow_private` (development).
- Errors say what may have happened: Retryable before anything was sent, OutcomeUnknown after, Rejected for a refused address.

Trace context is added by OpenTelemetry's instrumentation of httpx, which sees these calls like any other.
"""

import asyncio
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Self

import httpcore
import httpx
import stamina

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


def is_public(address: Address) -> bool:
    """Whether a merchant's server may live there. IPv4-mapped and NAT64 addresses are judged by the IPv4 address inside."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    # A scope id names an interface of this machine: link-local by nature.
    if address.scope_id is not None or address not in _GLOBAL_UNICAST_V6:
        return False
    return not any(address in network for network in _REFUSED_V6)


@dataclass(frozen=True)
class Deadlines:
    """In seconds. `read` bounds the wait for each piece of the answer, `total` the whole call with its name lookup."""

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
        except ValueError:
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
        self._backend = _GuardedBackend(resolve or _resolve, allow_private=allow_private)
        self._client = httpx.AsyncClient(
            transport=_GuardedTransport(self._backend, tls or _public_tls(), max_connections),
            timeout=httpx.Timeout(self._deadlines.read, connect=self._deadlines.connect),
            follow_redirects=False,
            # A proxy from the environment would do the dialling, out of the guard's sight.
            trust_env=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            # Compressed answers could grow without bound when they are opened.
            headers={"User-Agent": "Augenblick", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self, url: str) -> None:
        """Whether `url` would be dialled, without dialling it: for the moment an address is entered. It is checked again at
        every call. Raises Rejected("endpoint-address-refused"), or Retryable where the name does not resolve."""
        target = self._target(url)
        try:
            async with asyncio.timeout(self._deadlines.connect):
                await self._backend.addresses(target.host, target.port or 443)
        except (httpcore.ConnectError, TimeoutError):
            raise Retryable(f"The name {target.host} could not be resolved.") from None

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

    def _target(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            raise Rejected("endpoint-address-refused", "The address is not a URL.") from None
        allowed = {"https", "http"} if self._allow_private else {"https"}
        # A percent sign is what httpx makes of characters that no host name has, or an address on one interface only.
        if target.scheme not in allowed or not target.host or "%" in target.host:
            raise Rejected(
                "endpoint-address-refused", f"The address must begin with {' or '.join(sorted(allowed))}:// and a host name."
            )
        if target.userinfo:
            raise Rejected("endpoint-address-refused", "The address must not contain a user name or password.")
        return target

    async def _once(
        self, method: str, target: httpx.URL, headers: Mapping[str, str] | None, content: bytes | None, limits: Deadlines
    ) -> Answer:
        sent = False

        async def watch(event: str, _: Mapping[str, Any]) -> None:
            nonlocal sent
            sent = sent or event.endswith("send_request_headers.started")

        request = self._client.build_request(
            method,
            target,
            headers=headers,
            content=content,
            timeout=httpx.Timeout(limits.read, connect=limits.connect),
            extensions={"trace": watch},
        )
        try:
            async with asyncio.timeout(limits.total):
                response = await self._client.send(request, stream=True)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            what = f"{target.host}: {_in_words(error)}"
            if sent:
                raise OutcomeUnknown(f"No complete answer from {what}.") from None
            raise Retryable(f"No connection to {what}.") from None
        kept = body[: self._max_response_bytes]
        return Answer(response.status_code, response.headers, kept, truncated=len(kept) < len(body))

    async def _read(self, response: httpx.Response) -> bytes:
        """One byte more than the limit tells that there was more; the rest is never read."""
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > self._max_response_bytes:
                break
        return bytes(body[: self._max_response_bytes + 1])


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


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "it took too long"
    return str(error) or type(error).__name__


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Dials only addresses that were checked, right after checking them."""

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._plain = httpcore.AnyIOBackend()

    async def addresses(self, host: str, port: int) -> list[str]:
        """The host's addresses, all of them allowed: one bad one among good ones is a trick."""
        try:
            found = [ip_address(text) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name does not resolve ({error})") from error
        if not found:
            raise httpcore.ConnectError("the name has no address")
        if not self._allow_private and not all(is_public(address) for address in found):
            # Which address it was would tell a stranger about the network inside.
            raise Rejected("endpoint-address-refused", f"{host} is not, or not only, at a public address.")
        return list(dict.fromkeys(str(address) for address in found))

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self.addresses(host, port)
                for address in addresses[:-1]:
                    try:
                        return _Stream(await self._plain.connect_tcp(address, port, timeout, local_address, socket_options))
                    except httpcore.ConnectError:
                        continue
                return _Stream(await self._plain.connect_tcp(addresses[-1], port, timeout, local_address, socket_options))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("it took too long") from error

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that tells cheaply whether the other side has closed it: before every call the pool asks that of each
    connection that waits for its next one."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket: socket.socket | None = stream.get_extra_info("socket")
        self._watch = select.poll()
        if self._socket is not None:
            self._watch.register(self._socket.fileno(), select.POLLIN)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 -- httpcore's signature
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- httpcore's signature
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._socket is not None:
            return self._socket.fileno() < 0 or bool(self._watch.poll(0))
        return self._stream.get_extra_info(info)


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, so that instrumentation finds it, over a connection pool that dials through the guard."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext, max_connections: int) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=max_connections,
            max_keepalive_connections=max(1, max_connections // 5),
            keepalive_expiry=5.0,
            network_backend=backend,
        )
