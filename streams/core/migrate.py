"""Running the migrations from code, wherever the package is installed."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, create_engine

from schemas.errors import Misconfigured
from streams.core.database import parse_url


def configuration(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["url"] = database_url
    return config


def move_to(database_url: str, revision: str = "head") -> None:
    """Up or down to `revision`. `base` takes everything down."""
    url = parse_url(database_url).set(drivername="postgresql+psycopg")
    config = configuration(url.render_as_string(hide_password=False))
    try:
        if _lies_behind(config, url, revision):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
    except CommandError as error:
        raise Misconfigured(f"The database cannot be brought to revision {revision}: {error}") from error


def _lies_behind(config: Config, url: URL, revision: str) -> bool:
    """Whether the database has `revision` behind it already."""
    if revision == "base":
        return True
    engine = create_engine(url)
    with engine.connect() as connection:
        now = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    behind = {step.revision for step in ScriptDirectory.from_config(config).iterate_revisions(now, "base")} if now else set()
    return revision in behind - {now}
