"""Snapshots' directories, as the matcher opens them (`infra.triton.vision.snapshots`). What is in the features is unknown here.

    <root>/<name>/manifest.json   {"format": 1, "matcher": …, "embedder": … | null, "sha256": of features.bin,
                                   "products": [{"product_id", "picture", "offset", "length"}, …]}
    <root>/<name>/features.bin    one after the other

A directory appears whole, under its final name, or not at all. It is never written to again: one that was damaged is made anew
under another name, for a matcher may have the damaged file open, and knows what it has opened by that name.
"""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streams.catalogues.store import Entry, Models, Place

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
        self._places: list[Place] = []

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
        self._places.append(Place(entry.product_id, entry.picture, len(entry.features)))

    def finish(self) -> Written:
        """Where the name is taken, by a directory that was damaged, this one has another."""
        sha256 = self._digest.hexdigest()
        name = f"{self._base}-{sha256[:12]}"
        if (self._root / name).exists():
            name += f"-{secrets.token_hex(4)}"
        manifest = _manifest(self._models, sha256, self._places)
        _close_durably(self._file)
        with (self._place / "manifest.json").open("x", encoding="utf-8") as file:
            json.dump(manifest, file, ensure_ascii=False, separators=(",", ":"))
            _close_durably(file)
        for path in self._place.iterdir():
            path.chmod(0o644)
        self._place.rename(self._root / name)
        _sync(self._root)
        return Written(name, sha256, len(self._places))


def damage(
    root: Path,
    name: str,
    models: Models,
    sha256: str,
    pictures: int,
    known: Collection[Place],
    *,
    read_up_to: int | None = None,
) -> str | None:
    """Why a directory is not what was written, in words that follow its name; None where it is. It was written of so many
    `pictures`, all of them among those `known` now: of others features may have come since. Features of more than `read_up_to`
    bytes are measured and not read."""
    try:
        places = _places(json.loads((root / name / "manifest.json").read_bytes()), models, sha256)
        if places is None or len(places) != pictures or not set(known).issuperset(places):
            return "has another manifest than was written"
        size = _end(places)
        with (root / name / "features.bin").open("rb") as file:
            if (found := os.fstat(file.fileno()).st_size) != size:
                return f"has {found} bytes of features instead of {size}"
            if (read_up_to is None or size <= read_up_to) and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return "has damaged features (another SHA-256)"
    except (FileNotFoundError, NotADirectoryError):
        return "is not there, or not all of it"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "has a manifest that is no JSON"
    return None


def listed(root: Path, name: str, models: Models, sha256: str) -> frozenset[Place] | None:
    """What a directory was written of, by its own manifest; None where that cannot tell."""
    try:
        places = _places(json.loads((root / name / "manifest.json").read_bytes()), models, sha256)
    except (OSError, ValueError):
        return None
    return None if places is None else frozenset(places)


def _places(manifest: Any, models: Models, sha256: str) -> list[Place] | None:
    """None where this is not the manifest of such a directory."""
    try:
        places = [Place(each["product_id"], each["picture"], each["length"]) for each in manifest["products"]]
        return places if manifest == _manifest(models, sha256, places) else None
    except (TypeError, KeyError):
        return None


def _manifest(models: Models, sha256: str, places: Sequence[Place]) -> dict[str, Any]:
    products: list[dict[str, Any]] = []
    for place, offset in zip(places, _offsets(places), strict=True):
        products.append({"product_id": place.product_id, "picture": place.picture, "offset": offset, "length": place.length})
    return {"format": 1, "matcher": models.matcher, "embedder": models.embedder, "sha256": sha256, "products": products}


def _offsets(places: Iterable[Place]) -> Iterator[int]:
    end = 0
    for place in places:
        offset = end + -end % _ALIGNMENT
        end = offset + place.length
        yield offset


def _end(places: Sequence[Place]) -> int:
    return [*_offsets(places)][-1] + places[-1].length if places else 0


def remove(root: Path, name: str) -> None:
    shutil.rmtree(root / name, ignore_errors=True)


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
