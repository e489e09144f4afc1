"""The same catalogue without one of its products, so that pictures of that product show none of the catalogue.

What a snapshot is, is said in infra/triton/vision/snapshots.py. One without a product shares the features' file with the whole
and has a shorter manifest, and is there only as long as it is asked.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from schemas.errors import Misconfigured

_PREFIX = "without-"
_FORGOTTEN_AFTER_S = 24 * 3600


@contextmanager
def without(directory: Path, snapshot: str, product_id: str) -> Iterator[str]:
    """The name of a snapshot like `snapshot`, less one product. Raises Misconfigured where `directory`, that of all snapshots,
    does not hold it, or cannot be written."""
    whole, name = directory / snapshot, f"{_PREFIX}{uuid4().hex}"
    made = directory / name
    try:
        manifest = json.loads((whole / "manifest.json").read_bytes())
        manifest["products"] = [entry for entry in manifest["products"] if entry["product_id"] != product_id]
        made.mkdir()
        try:
            os.link(whole / "features.bin", made / "features.bin")
            (made / "manifest.json").write_text(json.dumps(manifest))
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"Snapshot {snapshot} cannot be copied without a product ({_reason(error)}): set AUGENBLICK_CATALOGUE_DIRECTORY to"
            " the directory that Triton reads snapshots from, and run this as somebody who may write there."
        ) from error
    try:
        yield name
    finally:
        shutil.rmtree(made, ignore_errors=True)


def tidy(directory: Path) -> None:
    """Removes what runs that were killed have left a day ago."""
    for left in directory.glob(f"{_PREFIX}*"):
        try:
            if time.time() - left.stat().st_mtime > _FORGOTTEN_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # another run has just removed it


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__qualname__) if isinstance(error, OSError) else "its manifest is of another form"
