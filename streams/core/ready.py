"""Telling whoever started this process that it is ready: the file named by AUGENBLICK_READY_FILE appears."""

import os
from pathlib import Path


def announce() -> None:
    if path := os.environ.get("AUGENBLICK_READY_FILE"):
        Path(path).write_text(str(os.getpid()))
