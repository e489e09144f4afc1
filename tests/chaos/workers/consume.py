"""A worker as in production (the real Faust agent, loop, inbox and dead letters) whose handler writes one row per event.

    python -m tests.chaos.workers.consume TOPIC [PATIENCE_S]

Events are `wear.changed`; what the handler does with one is written in its `source`:

    /plain      write the row
    /slow       write the row after a while, so that some are always in flight
    /faulty     a bug, every time
    /stumbling  a bug at the first try, the row at the second
    /broken     what a handler raises when the database is away, until the file CHAOS_REPAIRED exists
"""

import asyncio
import os
import random
import sys
from pathlib import Path

import psycopg
from sqlalchemy import text

from schemas.events import Event
from schemas.payments import WearChanged
from schemas.topics import TOPICS
from streams.cli import _run_until_signalled
from streams.core import faust_worker
from streams.core.bootstrap import composed
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Transactional
from streams.core.outbox import Transaction
from streams.core.settings import load
from tests.chaos.topics import own_topic

ROW = text("INSERT INTO chaos_rows (consumer, event_id) VALUES (:consumer, :event_id)")
TRY = "INSERT INTO chaos_tries (consumer, event_id) VALUES (%s, %s)"


class Handler:
    """`tries` notes every try outside the transaction: it is there even if what was tried never was."""

    def __init__(self, consumer: str, tries: psycopg.AsyncConnection) -> None:
        self._consumer = consumer
        self._tries = tries
        self._stumbled: set[str] = set()

    async def handle(self, event: Event, unit: Transaction) -> None:
        event.decode(WearChanged)
        await self._note(event)
        match event.source:
            case "/slow":
                await asyncio.sleep(random.uniform(0.001, 0.01))
            case "/faulty":
                raise ZeroDivisionError("a bug")
            case "/stumbling" if event.id not in self._stumbled:
                self._stumbled.add(event.id)
                raise KeyError("a bug, this time")
            case "/broken" if not Path(os.environ["CHAOS_REPAIRED"]).exists():
                raise ConnectionError("as if the database were away")
        await unit.connection.execute(ROW, {"consumer": self._consumer, "event_id": event.id})

    async def _note(self, event: Event) -> None:
        try:
            await self._tries.execute(TRY, (self._consumer, event.id))
        except psycopg.OperationalError:
            # The notes are the test's; only their connection must not decide how this worker lives through an outage.
            url = load().database_url
            assert url is not None
            self._tries = await psycopg.AsyncConnection.connect(url.get_secret_value(), autocommit=True)
            await self._tries.execute(TRY, (self._consumer, event.id))


async def main() -> None:
    name, patience_s = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 120.0
    faust_worker._SESSION_S = int(os.environ.get("CHAOS_SESSION_S", faust_worker._SESSION_S))
    topic = next((topic for topic in TOPICS if topic.name == name), None) or own_topic(name)
    async with composed(load()) as parts:
        tries = await psycopg.AsyncConnection.connect(parts.database_url(), autocommit=True)
        consumer = Consumer(
            name=f"chaos-{name}",
            topics=(topic,),
            handling=Transactional(f"chaos-{name}", parts.database(), Handler(f"chaos-{name}", tries).handle),
            patience_s=patience_s,
        )
        await run_consumer(consumer, parts)


if __name__ == "__main__":
    _run_until_signalled(main)
