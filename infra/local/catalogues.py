"""Looks at the directories of the current snapshots, which nothing else reads until `match` opens them for a frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from infra.local.triton import CATALOGUE_DIRECTORY
from schemas.errors import Misconfigured
from streams.catalogues import store
from streams.catalogues.service import what_is_wrong
from streams.core.database import Database, create_engine

_READ_UP_TO = 64 << 20
"""Bytes of one snapshot: some 500 pictures. Larger ones are measured."""
_READ = 16
"""So many snapshots are read. Where there are more, the others are measured."""


@dataclass(frozen=True)
class Looked:
    """`damaged` says what is wrong with each snapshot that is not whole, `directory` where they lie."""

    directory: Path
    whole: int
    damaged: tuple[tuple[store.Snapshot, str], ...]


async def look(environment: Mapping[str, str]) -> Looked | None:
    """None where there is nothing to look at: no database or directory is named, the database does not answer, or it has no
    catalogues yet."""
    url, directory = environment.get("DATABASE_URL"), environment.get(CATALOGUE_DIRECTORY)
    if not url or not directory:
        return None
    try:
        database = Database(create_engine(url, connections=1))
    except Misconfigured:
        return None
    try:
        async with database.transaction() as connection:
            current = [snapshot for snapshot in await store.current(connection) if snapshot.name]
        wrong = [
            await what_is_wrong(database, Path(directory), snapshot, read_up_to=_READ_UP_TO if number < _READ else 0)
            for number, snapshot in enumerate(current)
        ]
    except SQLAlchemyError:
        return None
    finally:
        await database.close()
    damaged = [(snapshot, what) for snapshot, what in zip(current, wrong, strict=True) if what]
    return Looked(Path(directory), len(current) - len(damaged), tuple(damaged))
