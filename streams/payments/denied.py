"""Whom nobody may pay: a file the operator supplies, looked at before every submit. A line is a name, a merchant's or a device's
id; what follows a # is a remark. Names are compared without regard to case, accents, width, punctuation or spaces."""

import re
import unicodedata
from pathlib import Path

from schemas.errors import Misconfigured


class DeniedParties:
    """Reads the file again whenever it has changed. One that is set and cannot be read denies everybody (Misconfigured)."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._read_at: tuple[int, int] | None = None
        self._entries: frozenset[str] = frozenset()

    def includes(self, *parties: str) -> bool:
        if self._file is None:
            return False
        try:
            found = self._file.stat()
            if self._read_at != (found.st_mtime_ns, found.st_size):
                lines = self._file.read_text(encoding="utf-8").splitlines()
                self._entries = frozenset(plain for line in lines if (plain := _plain(line.partition("#")[0])))
                self._read_at = (found.st_mtime_ns, found.st_size)
        except (OSError, UnicodeError) as error:
            raise Misconfigured(
                "AUGENBLICK_DENIED_PARTIES_FILE cannot be read, so nothing may be paid: put it back, or correct the path."
            ) from error
        return any(_plain(party) in self._entries for party in parties)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[\W_]+", "", "".join(character for character in decomposed if not unicodedata.combining(character)))
