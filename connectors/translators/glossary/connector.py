"""Translates product titles word for word from a list, or not at all.

The rule. A title is cut into parts at numbers, quantities and punctuation. Every part consists of at most one noun of the list
(`whole milk` is one: the longest match counts), any modifiers (`organic`), and names from the caller's glossary (the brand)
before or after them. Modifiers go to the side of the noun where the target language has them; names, numbers and punctuation
stay where and as they are. If one word anywhere is unknown, or two nouns meet (`apple cake`: a compound that is not in the
list), the whole text comes back as it was, in its own language: half a translation is worse than none.

`terms.csv` has a column per language. A cell lists spellings separated by `|`: all are understood, the first is written. In
a modifier `~` stands for the noun. Only forms that need no agreement with the noun are written (`eko`, `sin gluten`).
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from schemas.commerce import Translation

NAME = "glossary"

_WITHOUT_SPACES = frozenset({"zh", "ja"})
_KEPT = re.compile(
    r"\d+(?:[.,]\d+)*(?:\s*[x×]\s*\d+(?:[.,]\d+)*)?(?:\s*(?:kg|g|mg|l|cl|dl|ml|mm|cm|m|%|st|kcal)(?!\w))?|[-–—,.;:/&+()\[\]·•|!°%*×'\"]",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class _Piece:
    """A recognised part of the text, as it will be written. `spaced`: whether blank space went before it."""

    kind: str
    text: str
    spaced: bool


class GlossaryTranslator:
    name = NAME

    async def translate(
        self, texts: Sequence[str], source: str, target: str, glossary: Mapping[str, str] | None = None
    ) -> Sequence[Translation]:
        """Give brands as `glossary={brand: brand}`: they are no words of the list."""
        return [self._translate(text, source, target, glossary or {}) for text in texts]

    def _translate(self, text: str, source: str, target: str, glossary: Mapping[str, str]) -> Translation:
        as_it_was = Translation(text=text, language=source, by=NAME)
        from_language, to_language = _language(source), _language(target)
        if from_language == to_language or not {from_language, to_language} <= _terms().keys():
            return as_it_was
        pieces = _recognise(text.strip(), from_language, to_language, glossary)
        written = _write(pieces, to_language) if pieces is not None else None
        if not written:
            return as_it_was
        return Translation(text=_capital_like(text.strip(), written, to_language), language=target, by=NAME)


def _language(tag: str) -> str:
    return tag.partition("-")[0].lower()


@cache
def _terms() -> dict[str, list[tuple[str, list[str]]]]:
    """Per language one (kind, spellings) per row of the list, the rows in the same order everywhere."""
    table = files(__package__).joinpath("terms.csv").read_text(encoding="utf-8")
    columns: dict[str, list[tuple[str, list[str]]]] = {}
    for row in csv.DictReader(table.splitlines()):
        kind = row.pop("kind")
        for language, cell in row.items():
            columns.setdefault(language, []).append((kind, cell.split("|")))
    return columns


@cache
def _index(language: str) -> tuple[re.Pattern[str], dict[str, int]]:
    """What matches any spelling of the language, longest first, and the row each spelling is in. The first row wins."""
    rows: dict[str, int] = {}
    for number, (_, spellings) in enumerate(_terms()[language]):
        for spelling in spellings:
            rows.setdefault(_folded(spelling.replace("~", " ")), number)
    return _any_of(rows, language), rows


def _any_of(spellings: Mapping[str, object], language: str) -> re.Pattern[str]:
    longest_first = sorted((spelling for spelling in spellings if spelling), key=len, reverse=True)
    # Blank space and hyphens are written either way: oat-drink, gluten free.
    words = "|".join(re.escape(spelling).replace(r"\ ", r"[\s-]+") for spelling in longest_first) or r"(?!)"
    return re.compile(words if language in _WITHOUT_SPACES else rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


def _folded(text: str) -> str:
    return _SPACE.sub(" ", text.replace("-", " ").replace("’", "'")).strip().casefold()


def _recognise(text: str, source: str, target: str, glossary: Mapping[str, str]) -> list[_Piece] | None:
    """None where a word is unknown."""
    terms, rows = _index(source)
    names = {_folded(name): wanted for name, wanted in glossary.items()}
    any_name = _any_of(names, source)
    text = text.replace("’", "'")
    pieces: list[_Piece] = []
    at, spaced = 0, False
    while at < len(text):
        if space := _SPACE.match(text, at):
            at, spaced = space.end(), True
            continue
        if found := any_name.match(text, at):
            wanted = names[_folded(found[0])]
            same = _folded(wanted) == _folded(found[0])
            piece = _Piece("name" if same else "translated name", found[0] if same else wanted, spaced)
        elif found := terms.match(text, at):
            kind, spellings = _terms()[target][rows[_folded(found[0])]]
            piece = _Piece(kind, spellings[0], spaced)
        elif found := _KEPT.match(text, at):
            piece = _Piece("kept", found[0], spaced)
        else:
            return None
        pieces.append(piece)
        at, spaced = found.end(), False
    return pieces


def _write(pieces: Sequence[_Piece], language: str) -> str | None:
    """None where two nouns meet, or where there is nothing to translate."""
    if all(piece.kind in {"kept", "name"} for piece in pieces):
        return None
    written = ""
    for part in _parts(pieces):
        ordered = _in_order(part)
        if ordered is None:
            return None
        for piece in ordered:
            written += _gap(written, piece, language) + piece.text
    return written


def _gap(written: str, piece: _Piece, language: str) -> str:
    """Blank space where the source had it, and where words would run together that had none in Chinese or Japanese."""
    if not written:
        return ""
    left, right = written[-1], piece.text[0]
    if language in _WITHOUT_SPACES:
        return " " if piece.spaced and (left.isascii() or right.isascii()) else ""
    return " " if piece.spaced or (left.isalnum() and right.isalnum()) else ""


def _parts(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """Runs of words between what is kept; a hyphen without space (Bio-Milch) holds words together and is dropped."""
    part: list[_Piece] = []
    for number, piece in enumerate(pieces):
        if piece.kind != "kept":
            part.append(piece)
            continue
        following = pieces[number + 1] if number + 1 < len(pieces) else None
        if piece.text == "-" and part and following and following.kind != "kept" and not (piece.spaced or following.spaced):
            continue
        yield part
        yield [piece]
        part = []
    yield part


def _in_order(part: Sequence[_Piece]) -> list[_Piece] | None:
    """Names, modifiers and noun as the target language puts them; None where there are two nouns."""
    nouns = [piece for piece in part if piece.kind == "noun"]
    if len(nouns) > 1:
        return None
    words = [piece for piece in part if piece.kind in {"noun", "modifier"}]
    if not words:
        return list(part)
    first, last = part.index(words[0]), len(part) - 1 - list(reversed(part)).index(words[-1])
    if any(piece not in words for piece in part[first : last + 1]):
        return None
    before = [piece for piece in words if piece.kind == "modifier" and piece.text.endswith("~")]
    after = [piece for piece in words if piece.kind == "modifier" and piece.text.startswith("~")]
    core = [_Piece("word", piece.text.replace("~", "").strip(), spaced=True) for piece in [*before, *nouns, *after]]
    core[0] = _Piece("word", core[0].text, spaced=words[0].spaced)
    return [*part[:first], *core, *part[last + 1 :]]


def _capital_like(source: str, written: str, target: str) -> str:
    """A title begins with a capital, unless the shop wrote it without one; the other languages' first character has no case."""
    if target in _WITHOUT_SPACES or source[0].islower():
        return written
    return written[0].upper() + written[1:]
