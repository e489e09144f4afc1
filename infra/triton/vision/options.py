"""What a caller may say beside the picture: a JSON object in `OPTIONS`, and how much time is left."""

import json
import math
from collections.abc import Mapping
from time import perf_counter
from typing import Any

MAXIMUM_BYTES = 16 * 1024
NUMBER: tuple[type, ...] = (int, float)
"""The type of `time_left_ms`, and of every other number."""


class OptionsRefused(ValueError):
    """OPTIONS is not what the model takes. The message goes to the caller."""


class Deadline:
    """Counts from when it is made. Without a time it never passes."""

    def __init__(self, milliseconds: float | None = None) -> None:
        self._ends = math.inf if milliseconds is None else perf_counter() + milliseconds / 1000

    def left_ms(self) -> float:
        """Never below 0; infinity where there is no deadline."""
        return max(0.0, (self._ends - perf_counter()) * 1000)

    def passed(self) -> bool:
        return perf_counter() >= self._ends

    def at_most(self, milliseconds: float) -> "Deadline":
        """The earlier of this one and so many milliseconds from now."""
        return Deadline(min(self.left_ms(), milliseconds))


def parse(text: bytes | str | None, known: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """The object's members, each of the type its name has in `known`; nothing for nothing. Raises OptionsRefused."""
    if not text:
        return {}
    if len(text) > MAXIMUM_BYTES:
        raise OptionsRefused(f"OPTIONS is longer than {MAXIMUM_BYTES:,} bytes")
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        raise OptionsRefused("OPTIONS is no JSON") from None
    if not isinstance(options, dict):
        raise OptionsRefused("OPTIONS is no JSON object")
    for name, value in options.items():
        if name not in known:
            raise OptionsRefused(f"OPTIONS has an unknown key; known are {', '.join(sorted(known))}")
        # For Python a bool is an int as well; for the caller it is a mistake.
        if not isinstance(value, known[name]) or (isinstance(value, bool) and known[name] is not bool):
            raise OptionsRefused(f"OPTIONS: {name} has the wrong type")
    if not (0 <= options.get("time_left_ms", 0) < math.inf):
        raise OptionsRefused("OPTIONS: time_left_ms is no time")
    return options
