"""The migrations make the database that the code describes, and take all of it away again."""

import asyncio

import psycopg
from alembic import command
from alembic.script import ScriptDirectory

from schemas.tables import metadata
from streams.core.migrate import configuration, move_to

LEFT = {
    "relations": "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public'",
    "functions": "SELECT proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'public'",
    "types": "SELECT typname FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace WHERE nspname = 'public'",
    "schemas": "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'",
}
ALEMBICS_OWN = {"alembic_version", "alembic_version_pkc", "_alembic_version"}


async def contents(url: str) -> dict[str, set[str]]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return {what: {name for (name,) in await (await connection.execute(query)).fetchall()} for what, query in LEFT.items()}


async def test_up_down_and_up_again(empty_database_url: str) -> None:
    url = empty_database_url
    nothing = await contents(url)
    await asyncio.to_thread(move_to, url)
    first = await contents(url)
    assert {table.name for table in metadata.sorted_tables} <= first["relations"]
    await asyncio.to_thread(command.check, configuration(url))

    await asyncio.to_thread(move_to, url, "base")
    assert {what: names - ALEMBICS_OWN for what, names in (await contents(url)).items()} == nothing

    await asyncio.to_thread(move_to, url)
    assert await contents(url) == first
    await asyncio.to_thread(command.check, configuration(url))


async def test_every_single_step_can_be_taken_back(empty_database_url: str) -> None:
    url = empty_database_url
    config = configuration(url)
    steps = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    assert len(steps) >= 2
    for step in steps:
        before = await contents(url)
        await asyncio.to_thread(command.upgrade, config, step)
        after = await contents(url)
        await asyncio.to_thread(command.downgrade, config, "-1")
        assert {what: names - ALEMBICS_OWN for what, names in (await contents(url)).items()} == {
            what: names - ALEMBICS_OWN for what, names in before.items()
        }, f"{step} leaves something behind"
        await asyncio.to_thread(command.upgrade, config, step)
        assert await contents(url) == after


async def test_moving_to_where_one_is_changes_nothing(database_url: str) -> None:
    before = await contents(database_url)
    await asyncio.to_thread(move_to, database_url)
    assert await contents(database_url) == before
