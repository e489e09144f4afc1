"""Runs a program to its end, off the event loop's back."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from streams.core.supervisor import launch_arguments


class CommandFailed(RuntimeError):
    """A program ended with an error or took too long. `output` is what it wrote, both streams together."""

    def __init__(self, argv: Sequence[str], problem: str, output: str) -> None:
        self.output = output
        tail = "\n".join(f"  | {line}" for line in output.splitlines()[-15:])
        super().__init__(f"{Path(argv[0]).name} {problem}:\n{tail}")


async def run_command(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    run_as_user: str | None = None,
    working_directory: Path | None = None,
) -> str:
    """Returns the program's output. Raises `CommandFailed`. The program ends with this process or a cancelled caller."""
    process = await asyncio.create_subprocess_exec(
        *launch_arguments(argv, user=run_as_user),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        cwd=working_directory,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        raise CommandFailed(argv, f"did not end within {timeout_seconds:g} s", "") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise CommandFailed(argv, f"ended with status {process.returncode}", text)
    return text
