"""Running the migrations from code, wherever the package is installed."""

from importlib.resources import files

from alembic import command
from alembic.config import Config

from streams.core.database import parse_url


def configuration(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["url"] = database_url
    return config


def move_to(database_url: str, revision: str = "head") -> None:
    """Up or down to `revision`. `base` takes everything down."""
    config = configuration(parse_url(database_url).render_as_string(hide_password=False))
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
