"""Java programs for the stack: fetched by Maven once, checked against checksums kept in the repository, started fast.

What is fetched lands in `var/cache/NAME-…/`; the name's second part changes with the pom and the checksums, so that an update of
either fetches anew.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache as remember
from pathlib import Path

from infra.local.commands import CommandFailed, run_command
from infra.local.component import ComponentUnavailable
from infra.local.layout import cache
from infra.local.lock import file_lock
from streams.core.supervisor import ProcessFailed, ProcessSpec, Supervisor

OLDEST_JAVA = 17
FETCH_TIMEOUT_SECONDS = 600.0

# Java warns of every class it cannot take from its archive; only errors matter here.
QUIET = ("-Xlog:disable", "-Xlog:all=error:stderr")

# One small broker or collector for one person: the first compiler tier and the serial collector start fastest and need least.
FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", *QUIET)


@remember
def java_version() -> str | None:
    """The full version of the `java` on the PATH, or None when there is none that runs."""
    java = shutil.which("java")
    if java is None:
        return None
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "([^"]+)"', answer)
    return match.group(1) if match else None


def java_problem() -> str | None:
    """Why Java programs cannot run here, with the remedy; None when they can."""
    version = java_version()
    if version is None:
        return f"Java is not installed. Install Java {OLDEST_JAVA} or newer (a headless runtime is enough)"
    major = re.match(r"\d+", version)
    if major is None or int(major.group()) < OLDEST_JAVA:
        return f"Java {version} is too old. Install Java {OLDEST_JAVA} or newer"
    return None


class JavaProgram:
    """The jars of one program, named by a `pom.xml` with a `checksums.sha256` beside it. `unpack` turns what Maven fetched into
    the jars of the class path, where they are not the same."""

    def __init__(self, name: str, definition: Path, unpack: Callable[[Path, Path], None] | None = None) -> None:
        self.name = name
        self.definition = definition
        self._unpack = unpack

    @property
    def directory(self) -> Path:
        digest = hashlib.sha256()
        for file in ("pom.xml", "checksums.sha256"):
            digest.update((self.definition / file).read_bytes())
        return cache() / f"{self.name}-{digest.hexdigest()[:12]}"

    @property
    def is_fetched(self) -> bool:
        return (self.directory / "complete").exists()

    def problem(self) -> str | None:
        """Why this program cannot be had here, with the remedy; None when it can."""
        if problem := java_problem():
            return problem
        if not self.is_fetched and shutil.which("mvn") is None:
            return f"{self.name} is not downloaded yet and Maven is not installed. Install Maven (mvn)"
        return None

    def class_path(self) -> str:
        # In a fixed order and spelled out: a class data archive is only used with the very class path it was made with.
        return os.pathsep.join(str(jar) for jar in sorted((self.directory / "jars").glob("*.jar")))

    def class_data_archive(self) -> Path:
        """Java's pre-parsed classes. Made by one version of Java for itself."""
        return self.directory / f"classes-{java_version()}.jsa"

    def java(self, *flags: str) -> list[str]:
        archive = self.class_data_archive()
        shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        return ["java", *FAST_START, *shared, *flags, "-cp", self.class_path()]

    async def fetch(self) -> None:
        """Makes the jars present. Several processes may do this at the same time: one fetches, the others wait."""
        if self.is_fetched:
            return
        # Maven's own local repository is not safe for two Mavens at once, and it belongs to the user, not to this checkout.
        lock = file_lock(Path(tempfile.gettempdir()) / f"augenblick-maven-{os.getuid()}.lock", FETCH_TIMEOUT_SECONDS)
        await asyncio.to_thread(lock.__enter__)
        try:
            if not self.is_fetched:
                await self._fetch()
        finally:
            lock.__exit__(None, None, None)

    async def _fetch(self) -> None:
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix=f".{self.name}-") as temporary:
            fetched = Path(temporary) / "fetched"
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
            try:
                await run_command(
                    ["mvn", "--quiet", "--batch-mode", f"--file={self.definition / 'pom.xml'}", *goal],
                    timeout_seconds=FETCH_TIMEOUT_SECONDS,
                )
            except CommandFailed as error:
                raise ComponentUnavailable(
                    f"{self.name} could not be downloaded. Check the network, or name a mirror in Maven's settings.xml. {error}"
                ) from error
            self._verify(fetched)
            jars = Path(temporary) / "jars"
            if self._unpack is None:
                fetched.rename(jars)
            else:
                jars.mkdir()
                await asyncio.to_thread(self._unpack, fetched, jars)
                shutil.rmtree(fetched)
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir()
            jars.rename(self.directory / "jars")
            (self.directory / "complete").touch()

    def _verify(self, directory: Path) -> None:
        expected = {}
        for line in (self.definition / "checksums.sha256").read_text().splitlines():
            digest, name = line.split()
            expected[name] = digest
        actual = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in directory.glob("*.jar")}
        wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
        if wrong:
            raise ComponentUnavailable(
                f"{self.name}: what Maven fetched is not what {self.definition / 'checksums.sha256'} names: "
                f"{', '.join(wrong[:5])}. "
                "Delete these artifacts from Maven's local repository and try again; if it happens again, do not trust the mirror"
            )

    async def archive_classes(self, training: ProcessSpec) -> None:
        """Runs the program once and keeps the classes it loaded in a form Java starts faster from (Kafka: 2.1 s → 1.4 s).

        `training` must start like the real program, with `archive_flag` among its flags, and be ready when all is loaded. Not
        having the archive costs only time, so a failure is not an error.
        """
        with contextlib.suppress(ProcessFailed):
            async with Supervisor(on_event=lambda _: None) as supervisor:
                await supervisor.start([training])
        made = self.unfinished_archive()
        if made.exists():
            made.replace(self.class_data_archive())
        else:
            self._archive_refused().touch()

    @property
    def classes_are_archived(self) -> bool:
        """Also when this Java was asked once and made no archive: asking at every start would cost more than it saves."""
        return self.class_data_archive().exists() or self._archive_refused().exists()

    def _archive_refused(self) -> Path:
        return self.class_data_archive().with_suffix(".none")

    def unfinished_archive(self) -> Path:
        return self.directory / f"classes-{os.getpid()}.unfinished"

    def archive_flag(self) -> str:
        return f"-XX:ArchiveClassesAtExit={self.unfinished_archive()}"


def unpack_spring_boot(fetched: Path, jars: Path) -> None:
    """Takes a Spring Boot jar of jars apart. Plain jars load faster, and only their classes can go into a class data archive."""
    (boot_jar,) = fetched.glob("*.jar")
    libraries, classes = "BOOT-INF/lib/", "BOOT-INF/classes/"
    with zipfile.ZipFile(boot_jar) as boot, zipfile.ZipFile(jars / "000-application.jar", "w") as application:
        for name in boot.namelist():
            if name.startswith(libraries) and name.endswith(".jar"):
                (jars / Path(name).name).write_bytes(boot.read(name))
            elif name.startswith(classes) and not name.endswith("/"):
                application.writestr(name.removeprefix(classes), boot.read(name))
