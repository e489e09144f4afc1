"""One connection per device: a newer one ends the older, which its glasses have given up."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Links:
    def __init__(self) -> None:
        self._newest: dict[str, asyncio.Task[None]] = {}

    async def keep_newest(self, device_id: str, session: Coroutine[Any, Any, None]) -> None:
        """Runs the session until it ends, or until the device connects anew here."""
        if older := self._newest.get(device_id):
            older.cancel()
        running = self._newest[device_id] = asyncio.create_task(session)
        try:
            await asyncio.wait([running])
        finally:
            running.cancel()
            if self._newest.get(device_id) is running:
                del self._newest[device_id]
        if not running.cancelled() and (error := running.exception()):
            raise error
