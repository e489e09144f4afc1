"""What was left behind: searching everything that was written for what must not be there."""

import base64
import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.topics import Topic

_BLOCK = 16 * 1024 * 1024
_LONGEST = 4096  # of what is searched for, so that nothing hides between two blocks


def spellings(secret: bytes) -> list[bytes]:
    """As it is, in hexadecimal, and in base64 at each of its three offsets: the ways in which logs and databases write bytes."""
    encoded = [base64.b64encode(b"\0" * offset + secret)[4 * bool(offset) :].rstrip(b"=")[:-2] for offset in range(3)]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), *encoded]


class Searched:
    """Looks for these secrets, in all their spellings."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        # A dict, not a set: the first that is found is the plainest.
        self._wanted = tuple(dict.fromkeys(spelling for secret in secrets for spelling in spellings(secret)))
        assert all(12 <= len(spelling) < _LONGEST for spelling in self._wanted), "found by chance, or not at all"

    def found_in(self, content: bytes) -> list[bytes]:
        return [spelling for spelling in self._wanted if spelling in content]

    def found_in_file(self, path: Path) -> list[bytes]:
        """What is a hole in a sparse file, as Kafka's indexes are, is not read."""
        found: list[bytes] = []
        with path.open("rb", buffering=0) as file:
            for begins, ends in _written(file.fileno()):
                at = begins
                while at < ends:
                    found += self.found_in(os.pread(file.fileno(), min(_BLOCK, ends - at), at))
                    at += _BLOCK - _LONGEST
        return list(dict.fromkeys(found))


def _written(descriptor: int) -> Iterator[tuple[int, int]]:
    """From where to where there is data."""
    ends = 0
    while True:
        try:
            begins = os.lseek(descriptor, ends, os.SEEK_DATA)
        except OSError:
            return
        ends = os.lseek(descriptor, begins, os.SEEK_HOLE)
        yield begins, ends


def files_below(*roots: Path, since: float = 0.0) -> Iterator[Path]:
    """Those written since then, in seconds since 1970."""
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since:
                        yield path


async def rows_as_text(connection: AsyncConnection) -> bytes:
    """Every row of every table, as PostgreSQL writes it for people, bytes in hexadecimal: in its files large values are
    compressed, and nothing is found in them."""
    written = []
    tables = await connection.execute(
        text("SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables"
             " WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')")
    )  # fmt: skip
    for table in tables.scalars().all():
        rows = await connection.execute(text(f"SELECT t::text FROM {table} AS t"))
        written.append("\n".join(rows.scalars()))
    return "\n".join(written).encode()


async def records(kafka: str, topics: Collection[Topic]) -> AsyncIterator[ConsumerRecord]:
    """Everything that is in these topics now. Read through Kafka, which may keep batches compressed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    async with consumer:
        partitions = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        left = {partition for partition in partitions if begins[partition] < ends[partition]}
        while left:
            for partition, batch in (await consumer.getmany(*left, timeout_ms=1000)).items():
                for record in batch:
                    yield record
                if await consumer.position(partition) >= ends[partition]:
                    left.discard(partition)


def whole(record: ConsumerRecord) -> bytes:
    """Key, value and headers."""
    headers = (part for name, value in record.headers for part in (name.encode(), value))
    return b"\n".join(part or b"" for part in (record.key, record.value, *headers))


async def spans(zipkin: str) -> bytes:
    """All that Zipkin keeps, as JSON. `zipkin` ends with a slash."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.get(zipkin + "api/v2/traces", params={"lookback": 3_600_000, "limit": 10_000})
        assert answer.status_code == 200
        return answer.content
