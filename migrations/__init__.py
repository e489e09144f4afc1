"""The database's history. The only thing that creates tables: `augenblick migrate`, or `alembic upgrade head`."""
