"""The console's process: one HTTP server that reads the database, until it is cancelled."""

from streams.console.pages import make_app
from streams.core.bootstrap import Parts
from streams.core.web import serve


async def run(parts: Parts) -> None:
    settings = parts.settings
    await serve(make_app(settings, parts.database(verified=True)), settings.console_host, settings.console_port)
