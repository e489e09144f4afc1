"""The real relay, up to the moment when the broker has what was sent and the database does not know it yet: there it is killed.

python -m tests.chaos.workers.dying_relay
"""

import os
import signal
from typing import Any

import psycopg
import uvloop

from streams.core import relay
from streams.core.bootstrap import composed
from streams.core.producer import kafka_producer
from streams.core.settings import load


class DiesBeforeMarking:
    """A connection like any other, but for one statement."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, statement: str, *arguments: Any) -> Any:
        if statement == relay._MARK:
            os.kill(os.getpid(), signal.SIGKILL)
        return await self._connection.execute(statement, *arguments)


async def main() -> None:
    async with composed(load()) as parts:
        producer = kafka_producer(parts.kafka())
        await producer.start()
        connection = await psycopg.AsyncConnection.connect(parts.database_url(), autocommit=True)
        await relay.Relay(DiesBeforeMarking(connection), producer).run()  # type: ignore[arg-type]


if __name__ == "__main__":
    uvloop.run(main())
