"""The worker of `consume`, at the moment in which a broker has just begun and does not know itself yet: it names nobody who could
coordinate a group.

    python -m tests.chaos.workers.uncoordinated TOPIC
"""

import asyncio
from typing import NoReturn

from aiokafka.client import AIOKafkaClient

from tests.chaos.workers import consume


async def _nobody(*_: object) -> NoReturn:
    raise AssertionError("Did we not perform bootstrap?")


if __name__ == "__main__":
    AIOKafkaClient.coordinator_lookup = _nobody
    asyncio.run(consume.main())
