"""Snapshots' directories, as the matcher opens them (`infra.triton.vision.snapshots`). What is in the features is unknown here.

    <root>/<name>/manifest.json   {"format": 1, "matcher": …, "embedder": … | null, "sha256": of features.bin,
                                   "products": [{"product_id", "picture", "offset", "length"}, …]}
    <root>/<name>/features.bin    one after the other

A directory appears whole, under its final name, or not at all.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streams.catalogues.store import Entry, Models

_UNFINISHED = ".unfinished-"
_ALIGNMENT = 16  # bytes: numbers that are read where they lie should lie well


@dataclass(frozen=True)
class Written:
    """`pictures` is how many entries the manifest has."""

    name: str
    sha256: str
    pictures: int


class SnapshotWriter:
    """Writes beside, and renames at the end. Leaving the block without `finish` removes what was written."""

    def __init__(self, root: Path, merchant_id: str, number: int, models: Models) -> None:
        self._root = root
        self._base = f"{merchant_id}-{number}"
        self._models = models
        self._digest = hashlib.sha256()
        self._length = 0
        self._products: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self._place = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{self._base}-", dir=self._root))
        self._place.chmod(0o755)  # the server that reads it may be another user's
        self._file = (self._place / "features.bin").open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def add(self, entry: Entry) -> None:
        padding = bytes(-self._length % _ALIGNMENT)
        for part in (padding, entry.features):
            self._file.write(part)
            self._digest.update(part)
            self._length += len(part)
        place = {"offset": self._length - len(entry.features), "length": len(entry.features)}
        self._products.append({"product_id": entry.product_id, "picture": entry.picture, **place})

    def finish(self) -> Written:
        """Where a directory of that name is there already, it holds the same and stays."""
        sha256 = self._digest.hexdigest()
        name = f"{self._base}-{sha256[:12]}"
        manifest = {
            "format": 1,
            "matcher": self._models.matcher,
            "embedder": self._models.embedder,
            "sha256": sha256,
            "products": self._products,
        }
        _close_durably(self._file)
        with (self._place / "manifest.json").open("x", encoding="utf-8") as file:
            json.dump(manifest, file, ensure_ascii=False, separators=(",", ":"))
            _close_durably(file)
        for path in self._place.iterdir():
            path.chmod(0o644)
        try:
            self._place.rename(self._root / name)
        except OSError:
            if not is_there(self._root, name):
                raise
        _sync(self._root)
        return Written(name, sha256, len(self._products))


def is_there(root: Path, name: str) -> bool:
    return (root / name / "manifest.json").exists()


def remove_unused(root: Path, merchant_id: str, used: Collection[str]) -> list[str]:
    """Removes this merchant's directories that no snapshot names, and what unfinished imports left. A server that has one of them
    open reads on: its bytes stay until they are let go of."""
    if not root.is_dir():
        return []
    own, unfinished = f"{merchant_id}-", f"{_UNFINISHED}{merchant_id}-"
    unused = [path for path in root.iterdir() if path.name.startswith((own, unfinished)) and path.name not in used]
    for path in unused:
        shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in unused)


def _close_durably(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
