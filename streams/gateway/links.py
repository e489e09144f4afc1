"""One connection per device: a newer one ends the older, which its glasses have given up; and whoever was revoked, or got another
key, has none.

What counts is `devices.link`: a connection is open for as long as the row names it. Each gateway looks twice a second whether the
rows still name its own connections, all in one query. No message can be missed this way, whichever gateway or command line
changed the row, and whether or not Kafka answers; it takes a second at most.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from streams.core.database import Database
from streams.gateway import store

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.4
_TAKES_LEAVE_S = 0.2


class Ending(Enum):
    """Why a connection was ended by us."""

    REPLACED = "replaced"
    REVOKED = "revoked"
    KEY_CHANGED = "key_changed"


class Session(Protocol):
    """`link` is what the device's row names, from the moment on that it does; None before."""

    link: str | None

    def run(self) -> Coroutine[Any, Any, None]: ...


@dataclass(eq=False)
class _Connection:
    session: Session
    ended: asyncio.Future[Ending] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, why: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


class Links:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest: dict[str, _Connection] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def keep_newest(self, device_id: str, session: Session) -> Ending | None:
        """Runs the session until it ends by itself (None), or must. Raises what the session raises."""
        if older := self._newest.get(device_id):
            older.end(Ending.REPLACED)
        connection = self._newest[device_id] = _Connection(session)
        running = asyncio.create_task(session.run())
        try:
            either: list[asyncio.Future[Any]] = [running, connection.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._newest.get(device_id) is connection:
                del self._newest[device_id]
            # What it still says goodbye to may hang, and must not keep the connection open.
            self._leaving.add(running)
            running.add_done_callback(self._leaving.discard)
            running.cancel()
            await asyncio.wait([running], timeout=_TAKES_LEAVE_S)
        if connection.ended.done():
            return connection.ended.result()
        if not running.cancelled() and (error := running.exception()):
            raise error
        return None

    async def watch(self) -> None:
        """Ends what the database says is over, until cancelled. While the database is away nothing is ended, and nothing can be
        approved either."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self._look()
            except Exception as error:
                log.warning("cannot see which connections are over: %s", type(error).__qualname__)

    async def _look(self) -> None:
        links = {device_id: newest.session.link for device_id, newest in self._newest.items()}
        known = {device_id: link for device_id, link in links.items() if link is not None}
        if not known:
            return
        async with self._database.transaction() as connection:
            ended = await store.ended_links(connection, known)
        for found in ended:
            newest = self._newest.get(found.device_id)
            if newest is not None and newest.session.link == known[found.device_id]:
                newest.end(_why(found))


def _why(found: store.EndedLink) -> Ending:
    if found.revoked:
        return Ending.REVOKED
    return Ending.REPLACED if found.replaced else Ending.KEY_CHANGED
