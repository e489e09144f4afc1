"""The composition root: makes each part at its first use, once per process, and closes all of them at the end."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from schemas.errors import Misconfigured
from streams.core.database import Database, create_engine, parse_url
from streams.core.producer import Producer, running_producer
from streams.core.sealing import Sealer
from streams.core.settings import Settings, require

Part = TypeVar("Part")


class Parts:
    """What a role is made of. A part given in advance (a fake, in a test) is used as it is, and is its giver's to close."""

    def __init__(self, settings: Settings, closing: AsyncExitStack, **given: Any) -> None:
        self.settings = settings
        self.closing = closing
        self._made: dict[str, Any] = given

    def database(self, *, verified: bool = False) -> Database:
        """See `create_engine`; whoever asks first decides."""
        if "database" not in self._made:
            engine = create_engine(self.database_url(), connections=self.settings.window + 4, verified=verified)
            database = Database(engine)
            self.closing.push_async_callback(database.close)
            self._made["database"] = database
        return self._made["database"]  # type: ignore[no-any-return]

    async def producer(self) -> Producer:
        if "producer" not in self._made:
            self._made["producer"] = await self.closing.enter_async_context(running_producer(self.kafka()))
        return self._made["producer"]  # type: ignore[no-any-return]

    def sealer(self) -> Sealer:
        if (file := self.settings.secret_key_file) is not None:
            try:
                return Sealer(file.read_text())
            except OSError as error:
                raise Misconfigured(f"AUGENBLICK_SECRET_KEY_FILE cannot be read: {error.strerror}.") from error
        return Sealer(require(self.settings.secret_key, "secret_key").get_secret_value())

    def kafka(self) -> str:
        """The brokers' addresses."""
        return require(self.settings.kafka_bootstrap_servers, "kafka_bootstrap_servers")

    def database_url(self) -> str:
        """As psycopg takes it: postgresql://…"""
        url = parse_url(require(self.settings.database_url, "database_url").get_secret_value())
        return url.set(drivername="postgresql").render_as_string(hide_password=False)


@asynccontextmanager
async def composed(settings: Settings, **given: Any) -> AsyncIterator[Parts]:
    async with AsyncExitStack() as closing:
        yield Parts(settings, closing, **given)
