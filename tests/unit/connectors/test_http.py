"""The outbound client: what it refuses to dial, and what its errors promise."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from connectors.http import Answer, Deadlines, HttpClient, is_public
from schemas.errors import OutcomeUnknown, Rejected, Retryable

Talk = Callable[[bytes], Awaitable[bytes | None]]

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fe80::1",
    "fe80::1%2",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "3fff::1",
    "5f00::1",
]
PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_nothing_the_standard_library_calls_private_is_public(address: IPv4Address) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved:
        assert not is_public(address)


@given(st.ip_addresses(v=6))
def test_nothing_the_standard_library_calls_private_is_public_in_ipv6(address: IPv6Address) -> None:
    unwrapped = address.ipv4_mapped or (address if address not in _NAT64 else IPv4Address(int(address) & 0xFFFFFFFF))
    if unwrapped.is_private or unwrapped.is_loopback or unwrapped.is_link_local or unwrapped.is_multicast:
        assert not is_public(address)
    if address.sixtofour or address.teredo:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_changes_nothing(address: IPv4Address) -> None:
    assert is_public(IPv6Address(f"::ffff:{address}")) == is_public(address)
    assert is_public(IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))) == is_public(address)
    assert not is_public(IPv6Address(int(IPv6Address("2002::")) + (int(address) << 80)))
    assert not is_public(IPv6Address(int(address)))


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            answer = await talk(request)
            if answer is not None:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


def saying(answer: bytes | None, heard: list[bytes] | None = None) -> Talk:
    async def talk(request: bytes) -> bytes | None:
        if heard is not None:
            heard.append(request)
        return answer

    return talk


def at(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


_NAT64 = IPv6Network("64:ff9b::/96")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[64:ff9b::7f00:1]/",
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:password@example.com/",
        "https://",
        "",
        "//example.com",
        "not a url",
        "https://exa mple.com/",
        "https://127.0.0.1:6379/",
        "https://[v1.x:y.evil.example]/",
        "https://127.1/",
    ],
)
async def test_refused_addresses(url: str) -> None:
    async with HttpClient() as client:
        with pytest.raises(Rejected) as refused:
            await client.post(url, b"{}")
        assert refused.value.problem.code == "endpoint-address-refused"
        with pytest.raises(Rejected):
            await client.check(url)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "224.0.0.1",
        "0.0.0.0",
        "::",
        "ff02::1",
        "fe80::1",
        "fe80::1%2",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "64:ff9b::a9fe:a9fe",
    ],
)
async def test_development_reaches_its_own_network_and_nothing_link_local(address: str) -> None:
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    async with HttpClient(allow_private=True, resolve=at("127.0.0.1", address)) as client:
        for target in (url, "http://metadata.example/latest"):
            with pytest.raises(Rejected) as refused:
                await client.check(target)
            assert refused.value.problem.code == "endpoint-address-refused"
            with pytest.raises(Rejected):
                await client.request("GET", target)
    for private in ("10.1.2.3", "192.168.1.1", "::1", "fd00::1", "::ffff:127.0.0.1"):
        async with HttpClient(allow_private=True, resolve=at(private)) as client:
            await client.check("http://shop.example/")


async def test_one_private_address_among_public_ones_is_refused() -> None:
    async with HttpClient(resolve=at("93.184.216.34", "10.0.0.1")) as client:
        with pytest.raises(Rejected) as refused:
            await client.post("https://shop.example/", b"")
        assert "10.0.0.1" not in str(refused.value)


async def test_the_name_is_resolved_once_and_that_address_is_dialled() -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    asked = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    heard: list[bytes] = []
    async with server(saying(OK, heard)) as port, HttpClient(allow_private=True, resolve=resolve) as client:
        answer = await client.post(f"http://shop.example:{port}/hook", b"{}", headers={"X-Test": "1"})
    assert (answer.status, answer.excerpt, answer.truncated) == (200, "ok", False)
    assert asked == ["shop.example"]
    assert f"host: shop.example:{port}\r\n".encode() in heard[0].lower()


async def test_tls_keeps_the_name(tmp_path) -> None:
    certificate = _certificate(tmp_path, "shop.example")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    names: list[str] = []
    serving.sni_callback = lambda _, name, __: names.append(name)
    trusting = ssl.create_default_context(cafile=certificate)
    client = HttpClient(allow_private=True, resolve=at("127.0.0.1"), tls=trusting)
    async with server(saying(OK), serving) as port, client:
        assert (await client.post(f"https://shop.example:{port}/", b"")).status == 200
        assert names == ["shop.example"]
        # Another name at the same address is not vouched for by the certificate.
        with pytest.raises(Retryable):
            await client.post(f"https://other.example:{port}/", b"")


async def test_the_second_address_is_tried() -> None:
    async with server(saying(OK)) as port, HttpClient(allow_private=True, resolve=at("127.0.0.2", "127.0.0.1")) as client:
        assert (await client.post(f"http://shop.example:{port}/", b"")).status == 200


async def test_redirects_are_answers() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with server(saying(moved)) as port, HttpClient(allow_private=True) as client:
        assert (await client.post(f"http://127.0.0.1:{port}/", b"")).status == 302


async def test_cookies_are_not_kept() -> None:
    heard: list[bytes] = []
    setting = b"HTTP/1.1 200 OK\r\nSet-Cookie: who=you\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with server(saying(setting, heard)) as port, HttpClient(allow_private=True) as client:
        for _ in range(2):
            await client.post(f"http://127.0.0.1:{port}/", b"")
    assert b"cookie" not in heard[1].lower()


async def test_proxies_from_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with server(saying(OK)) as port, HttpClient(allow_private=True) as client:
        assert (await client.post(f"http://127.0.0.1:{port}/", b"")).status == 200


async def test_an_endless_answer_is_cut() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"a\x00" * 4000
    async with server(saying(endless)) as port, HttpClient(allow_private=True, max_response_bytes=5000) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/", b"")
    assert answer.truncated
    assert len(answer.body) == 5000
    assert answer.excerpt == "a\ufffd" * 500


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_a_lost_answer_is_an_unknown_outcome(answer: bytes) -> None:
    async with server(saying(answer)) as port, HttpClient(allow_private=True) as client:
        with pytest.raises(OutcomeUnknown):
            await client.post(f"http://127.0.0.1:{port}/", b"")


@pytest.mark.parametrize("answer", [b"SECRET-OF-THEIRS\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nSECRET"])
async def test_errors_quote_neither_the_address_nor_the_answer(answer: bytes) -> None:
    async with server(saying(answer)) as port, HttpClient(allow_private=True) as client:
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.post(f"http://127.0.0.1:{port}/SECRET?key=SECRET", b"")
    async with HttpClient(allow_private=True, resolve=at("127.0.0.1")) as client:
        with pytest.raises(Retryable) as refused:
            await client.post(f"http://shop.example:{port}/SECRET?key=SECRET", b"")
    for error in (unknown, refused):
        assert "SECRET" not in str(error.value)
    assert "127.0.0.1" not in str(refused.value), "where a name leads to is not told"


@pytest.mark.parametrize("slow", ["read", "total"])
async def test_a_slow_answer_is_an_unknown_outcome(slow: str) -> None:
    async def talk(_: bytes) -> bytes | None:
        await asyncio.sleep(5)
        return None

    deadlines = Deadlines(read=0.2) if slow == "read" else Deadlines(total=1.0)
    async with server(talk) as port, HttpClient(allow_private=True) as client:
        with pytest.raises(OutcomeUnknown, match="too long"):
            await client.post(f"http://127.0.0.1:{port}/", b"", deadlines=deadlines)


async def test_an_answer_that_trickles_meets_the_total_deadline() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = running.sockets[0].getsockname()[1]
    async with HttpClient(allow_private=True, deadlines=Deadlines(read=1, total=0.4)) as client:
        with pytest.raises(OutcomeUnknown):
            await client.post(f"http://127.0.0.1:{port}/", b"")
    running.close()


async def test_where_nobody_listens_nothing_was_sent() -> None:
    async with server(saying(OK)) as port:
        pass
    async with HttpClient(allow_private=True) as client:
        with pytest.raises(Retryable):
            await client.post(f"http://127.0.0.1:{port}/", b"")


async def test_a_name_without_address_is_retryable() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    async with HttpClient(resolve=resolve) as client:
        with pytest.raises(Retryable):
            await client.post("https://nowhere.example/", b"")
        with pytest.raises(Retryable):
            await client.check("https://nowhere.example/")


async def test_a_slow_name_lookup_meets_the_deadline() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(5)
        return []

    async with HttpClient(resolve=resolve, deadlines=Deadlines(connect=0.2)) as client:
        with pytest.raises(Retryable, match="too long"):
            await client.post("https://slow.example/", b"")


async def test_check_accepts_a_public_address_without_dialling() -> None:
    async with HttpClient(resolve=at("93.184.216.34")) as client:
        await client.check("https://shop.example/hooks?a=1")


async def test_who_waits_for_a_connection_gets_one_in_turn() -> None:
    async def talk(_: bytes) -> bytes | None:
        await asyncio.sleep(0.005)
        return OK

    served: list[int] = []
    async with server(talk) as port, HttpClient(allow_private=True, max_connections=2) as client:

        async def hurry(number: int) -> None:
            for _ in range(20):
                await client.post(f"http://127.0.0.1:{port}/", b"")
                served.append(number)

        await asyncio.gather(*(hurry(number) for number in range(6)))
    assert set(served[:18]) == set(range(6)), "nobody is passed over"


async def test_only_repeatable_calls_are_repeated() -> None:
    answers = [b"", b"HTTP/1.1 503 Wait\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", OK]
    heard: list[bytes] = []

    async def talk(request: bytes) -> bytes | None:
        heard.append(request)
        return answers[len(heard) - 1]

    async with server(talk) as port, HttpClient(allow_private=True) as client:
        assert (await client.request("GET", f"http://127.0.0.1:{port}/", repeatable=True)).status == 200
        assert len(heard) == 3
        heard.clear()
        with pytest.raises(OutcomeUnknown):
            await client.request("GET", f"http://127.0.0.1:{port}/")
        assert len(heard) == 1


async def test_what_does_not_get_better_is_answered() -> None:
    waiting = b"HTTP/1.1 503 Wait\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with server(saying(waiting)) as port, HttpClient(allow_private=True) as client:
        assert (await client.request("GET", f"http://127.0.0.1:{port}/", repeatable=True)).status == 503


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("9" * 500, 86_400),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after(header: str, seconds: float | None) -> None:
    assert Answer(429, {"retry-after": header}, b"", truncated=False).retry_after_s == seconds


def test_retry_after_as_a_date() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = Answer(429, {"retry-after": header}, b"", truncated=False).retry_after_s
    assert seconds is not None and 85 < seconds <= 90


async def test_a_call_is_a_span_that_names_the_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider, heard = InMemorySpanExporter(), TracerProvider(), []
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    async with server(saying(OK, heard)) as port, HttpClient(allow_private=True) as client:
        await client.post(f"http://127.0.0.1:{port}/hooks/secret?key=secret", b"")
    async with HttpClient(allow_private=True) as client:
        with pytest.raises(Retryable):
            await client.post(f"http://127.0.0.1:{port}/hooks/secret", b"")
    answered, failed = exporter.get_finished_spans()
    assert b"traceparent: 00-" in heard[0]
    assert answered.attributes is not None and answered.attributes["http.response.status_code"] == 200
    assert failed.attributes is not None and failed.attributes["error.type"] == "Retryable"
    assert "secret" not in answered.to_json() + failed.to_json()


async def test_a_signed_address_goes_out_as_it_is() -> None:
    heard: list[bytes] = []
    async with server(saying(OK, heard)) as port, HttpClient(allow_private=True) as client:
        await client.post(f"http://127.0.0.1:{port}/a%7Eb//c?x=%2B+%c3%a4&y=1:2/3", b"")
        await client.post(f"http://127.0.0.1:{port}/ä b", b"")
    assert heard[0].startswith(b"POST /a%7Eb//c?x=%2B+%c3%a4&y=1:2/3 HTTP/1.1")
    assert heard[1].startswith(b"POST /%C3%A4%20b HTTP/1.1")


@pytest.mark.parametrize("url", ["http://127.0.0.1/a\r\nX-Evil: 1", "http://127.0.0.1/\x00", "http://127.0.0.1\r\n/"])
async def test_no_header_can_be_smuggled_in_an_address(url: str) -> None:
    heard: list[bytes] = []
    async with server(saying(OK, heard)) as port, HttpClient(allow_private=True) as client:
        with suppress(Rejected, Retryable):
            await client.post(url.replace("127.0.0.1", f"127.0.0.1:{port}"), b"")
    assert not any(b"\r\nX-Evil" in request for request in heard)


def _certificate(folder, name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(path)
