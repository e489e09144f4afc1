"""The chaos tests' own Kafka and PostgreSQL: they are stopped and started again."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from streams.core import topics as administration
from streams.core.database import Database, create_engine
from streams.core.producer import Producer
from tests.chaos.arena import Arena
from tests.support.servers import local_stack, migrated_database, need_everything

TABLES = (
    # Without a key on purpose: what is done twice must be seen.
    "CREATE TABLE chaos_rows (consumer text NOT NULL, event_id text NOT NULL, at timestamptz NOT NULL DEFAULT now())",
    "CREATE TABLE chaos_tries (consumer text NOT NULL, event_id text NOT NULL)",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "chaos":
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
async def arena(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    async with local_stack(tmp_path_factory.mktemp("chaos"), "kafka", "postgres") as stack:
        servers = need_everything(stack).environment
        url = await migrated_database(servers["DATABASE_URL"])
        database = Database(create_engine(url))
        async with database.transaction() as connection:
            for statement in TABLES:
                await connection.execute(text(statement))
        administration.ensure(servers["KAFKA_BOOTSTRAP_SERVERS"])
        producer = Producer(servers["KAFKA_BOOTSTRAP_SERVERS"])
        await producer.start()
        try:
            environment = {**servers, "DATABASE_URL": url}
            yield Arena(stack, database, environment, producer, tmp_path_factory.mktemp("workers"))
        finally:
            await producer.stop()
            await database.close()
