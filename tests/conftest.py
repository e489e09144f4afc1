"""What tests may ask for: real components, started when the first test asks and shared by the session. A test that asks for
none starts none."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.local.stack import LocalStack
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from tests.support.rows import Rows
from tests.support.servers import local_stack, migrated_database, need_everything, new_database
from tests.support.world import RunningPlatform, running_platform

# The same examples in every run, as where CI is set, and as much time for each as it takes on a busy machine: whoever has changed
# nothing has broken nothing. To look for more: pytest --hypothesis-profile=default.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

SERVERS = {"stack", "triton", "platform"}
FIRST_START_S = 600
"""The first start on a machine downloads."""
GLANCE_BUDGET_MS = 5000
"""More than a wearer waits: an answer that comes too late on a slow machine is none. How quick they are, benchmarks measure."""


def pytest_configure(config: pytest.Config) -> None:
    # The algorithm's older name is what devices in the field write; the platform ignores this warning, too, but pytest resets it.
    config.addinivalue_line("filterwarnings", "ignore:EdDSA is deprecated")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        uses_servers = SERVERS & set(getattr(item, "fixturenames", ()))
        if uses_servers and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FIRST_START_S))


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    """Apache Kafka and PostgreSQL. Nobody stops or kills them: tests that do have their own (tests/chaos)."""
    async with local_stack(tmp_path_factory.mktemp("stack"), "kafka", "postgres") as stack:
        yield stack


@pytest.fixture(scope="session")
async def database_url(stack: LocalStack) -> str:
    """A database built by the migrations: postgresql://…"""
    return await migrated_database(stack.environment["DATABASE_URL"])


@pytest.fixture
async def empty_database_url(stack: LocalStack) -> str:
    """A database with nothing in it, for this test alone."""
    return await new_database(stack.environment["DATABASE_URL"])


@pytest.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(create_engine(database_url))
    yield database
    await database.close()


@pytest.fixture(scope="session")
def kafka(stack: LocalStack) -> str:
    """The address of a real Apache Kafka. The platform's own topics there belong to `platform`; tests make others."""
    return need_everything(stack).environment["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.fixture(scope="session")
async def triton(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    """With the repository's models, and a directory for catalogues' snapshots."""
    async with local_stack(tmp_path_factory.mktemp("triton"), "triton") as stack:
        yield stack


@pytest.fixture(scope="session")
def triton_url(triton: LocalStack) -> str:
    """gRPC, host:port."""
    return triton.environment["TRITON_URL"]


@pytest.fixture(scope="session")
def sealer() -> Sealer:
    return Sealer(base64.b64encode(bytes(range(32))).decode())


@pytest.fixture(scope="session")
def rows(database: Database, sealer: Sealer) -> Rows:
    """Adds makers, glasses, merchants and products to `database`."""
    return Rows(database, sealer)


@pytest.fixture(scope="session")
async def platform(
    stack: LocalStack, triton_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningPlatform]:
    """All roles as processes, with a database of their own, Zipkin, localstripe and a merchant's receiver."""
    root: Path = tmp_path_factory.mktemp("platform")
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": need_everything(stack).environment["KAFKA_BOOTSTRAP_SERVERS"],
        "DATABASE_URL": await new_database(stack.environment["DATABASE_URL"]),
        "TRITON_URL": triton_url,
    }
    async with (
        local_stack(root, "kafka", "postgres", "triton", "zipkin", configured=given) as world,
        running_platform(need_everything(world), {"AUGENBLICK_GLANCE_BUDGET_MS": str(GLANCE_BUDGET_MS)}) as platform,
    ):
        yield platform
