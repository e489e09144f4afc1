"""Events that could not be handled, kept with the reason, in the same transaction that marks them as handled."""

import hashlib
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import Rejected
from schemas.events import Event
from schemas.ids import DeadLetterId
from schemas.tables import dead_letters
from schemas.topics import TOPICS

_SENSITIVE = {topic.name for topic in TOPICS if topic.sensitive}


@dataclass(frozen=True)
class Record:
    """A Kafka record as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Reason:
    """Why: a code and a sentence. Of an unexpected error only its type and place, for its message may quote anything."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: BaseException) -> "Reason":
        if isinstance(error, Rejected):
            fields = "; ".join(f"{field.pointer}: {field.detail}" for field in error.problem.errors)
            return cls(error.problem.code, f"{error.problem.detail}{': ' if fields else ''}{fields}")
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}" if place else ""
        return cls("handler-failed", f"{type(error).__qualname__}{where}")


def _storable(text: str) -> str:
    """PostgreSQL takes no NUL; a lone surrogate is no text anywhere."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


async def write(
    connection: AsyncConnection, consumer: str, record: Record, event: Event | None, reason: Reason, attempts: int
) -> None:
    """Once per consumer and record. The value is left out for topics whose values must not be kept (frames)."""
    keep = record.topic not in _SENSITIVE
    value = record.value or b""
    statement = insert(dead_letters).values(
        id=DeadLetterId.new(),
        consumer=consumer,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        event_id=_storable(event.id) if event else None,
        event_type=_storable(event.type) if event else None,
        journey_id=event.journeyid if event else None,
        reason=reason.code,
        detail=_storable(reason.detail)[:2000],
        headers={_storable(name): _storable((raw or b"").decode("utf-8", "backslashreplace")) for name, raw in record.headers},
        key=record.key,
        value=value if keep else None,
        value_digest=hashlib.sha256(value).hexdigest(),
        attempts=attempts,
    )
    await connection.execute(statement.on_conflict_do_nothing())
