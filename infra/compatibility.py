"""Whether a JSON Schema may replace an older one under the same version.

Both sides must go on working while old and new run side by side, so both directions are asked:

    an old writer and a new reader   what the old schema allows, the new one must allow
    a new writer and an old reader   what the new schema allows, the old one must allow

Our readers refuse properties they do not know (`additionalProperties: false`); so even a new optional property breaks an
old reader and needs a new version. Where a schema leaves its objects open, old readers ignore what is new, and a new optional
property is compatible. Titles, descriptions and examples may always change. What cannot be judged (patterns, formats, keywords
of logic) may not change.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any] | bool

NEW_READER = "a new reader refuses what an old writer sends"
OLD_READER = "an old reader refuses what a new writer sends"

_ANNOTATIONS = frozenset({"$comment", "$defs", "$id", "$schema", "definitions", "deprecated", "description", "examples", "title"})
_LOWER_BOUNDS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"})
_UPPER_BOUNDS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"})
_ALTERNATIVES = ("anyOf", "oneOf")
_ABSENT = object()


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """What would break, one sentence each, beginning with the place (`/total/minor`); empty where nothing would."""
    return list(dict.fromkeys(_Comparison(old, new).compare(old, new, "")))


class _Comparison:
    """Two documents, for their references; and the pairs under comparison, for schemas that contain themselves."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self._under_way: set[tuple[str, str]] = set()

    def compare(self, old: Any, new: Any, place: str) -> Iterator[str]:
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        pair = (_canonical(old), _canonical(new))
        if pair in self._under_way:
            return
        self._under_way.add(pair)
        try:
            if isinstance(old, bool) or isinstance(new, bool):
                if old != new:
                    yield _found(place, f"{_canonical(old)} became {_canonical(new)}")
            elif any(keyword in schema for schema in (old, new) for keyword in _ALTERNATIVES):
                yield from self._alternatives(old, new, place)
            else:
                yield from self._keywords(old, new, place)
        finally:
            self._under_way.discard(pair)

    def _keywords(self, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
        judges: dict[str, Callable[[Any, Any, str], Iterator[str]]] = {
            "type": _types,
            "enum": _values,
            "items": self._parts,
            "contains": self._parts,
            "propertyNames": self._parts,
            "prefixItems": self._positions,
            "allOf": self._positions,
        }
        yield from self._object(old, new, place)
        old, new = _const_as_enum(old), _const_as_enum(new)
        for keyword in sorted(old.keys() | new.keys()):
            if keyword in _ANNOTATIONS or keyword in ("properties", "required", "additionalProperties", "$ref"):
                continue
            before, after = old.get(keyword, _ABSENT), new.get(keyword, _ABSENT)
            # What holds schemas is compared even if it reads the same: a reference in it may lead elsewhere now.
            if keyword not in judges and _said(before) == _said(after):
                continue
            if keyword in _LOWER_BOUNDS | _UPPER_BOUNDS:
                yield from _bound(keyword, before, after, place)
            elif before is _ABSENT or after is _ABSENT:
                yield from _came_or_went(keyword, before, after, place)
            elif keyword in judges:
                yield from judges[keyword](before, after, place)
            elif keyword == "default":
                yield _found(
                    place, f"the default {_canonical(before)} became {_canonical(after)}: leaving it out means another thing"
                )
            else:
                yield _found(place, f"{keyword} changed, which cannot be judged")

    # Objects.

    def _object(self, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        must, must_now = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(before.keys() - after.keys()):
            yield _found(f"{place}/{name}", "the property was removed")
        for name in sorted(after.keys() - before.keys()):
            yield from self._new_property(old, after[name], name in must_now, f"{place}/{name}")
        for name in sorted(before.keys() & after.keys()):
            if name in must_now - must:
                yield _found(f"{place}/{name}", "the property became required", NEW_READER)
            if name in must - must_now:
                yield _found(f"{place}/{name}", "the property is no longer required", OLD_READER)
            yield from self.compare(before[name], after[name], f"{place}/{name}")
        for name in sorted((must ^ must_now) - before.keys() - after.keys()):
            yield _found(
                f"{place}/{name}", "whether the property is required changed", NEW_READER if name in must_now else OLD_READER
            )
        yield from self._openness(old.get("additionalProperties", True), new.get("additionalProperties", True), place)

    def _new_property(self, old: dict[str, Any], added: Any, required: bool, place: str) -> Iterator[str]:
        others = old.get("additionalProperties", True)
        if required:
            yield _found(place, "a required property was added", NEW_READER)
        if others is False:
            yield _found(place, "a property was added, and old readers refuse those they do not know", OLD_READER)
        elif others is not True:
            yield from self.compare(others, added, place)

    def _openness(self, before: Any, after: Any, place: str) -> Iterator[str]:
        if isinstance(before, dict) and isinstance(after, dict):
            yield from self.compare(before, after, f"{place}/*")
        elif _canonical(before) != _canonical(after):
            narrower = after is False or before is True
            yield _found(place, "further properties are allowed otherwise than before", NEW_READER if narrower else OLD_READER)

    # Parts and alternatives.

    def _parts(self, before: Any, after: Any, place: str) -> Iterator[str]:
        yield from self.compare(before, after, f"{place}/*")

    def _differs(self, old: Any, new: Any) -> bool:
        return bool(list(self.compare(old, new, "")))

    def _positions(self, before: list[Any], after: list[Any], place: str) -> Iterator[str]:
        if len(before) != len(after):
            yield _found(place, f"there are {len(after)} parts instead of {len(before)}")
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from self.compare(one, other, f"{place}/{number}")

    def _alternatives(self, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
        """A schema without alternatives counts as one with a single alternative. Equal ones are paired first; then those of
        one type; what is left over was added or removed."""
        before, around = _branches(self._old, old)
        after, around_now = _branches(self._new, new)
        yield from self._keywords(around, around_now, place)
        left = [branch for branch in after if all(self._differs(one, branch) for one in before)]
        gone = [branch for branch in before if all(self._differs(branch, one) for one in after)]
        for branch in list(gone):
            partner = next((one for one in left if _kind(one) == _kind(branch)), None)
            if partner is not None:
                yield from self.compare(branch, partner, place)
                gone.remove(branch)
                left.remove(partner)
        for branch in gone:
            yield _found(place, f"the alternative {_kind(branch)} was removed", NEW_READER)
        for branch in left:
            yield _found(place, f"the alternative {_kind(branch)} was added", OLD_READER)


def _resolved(document: Schema, schema: Any) -> Any:
    """Follows references within the document. What stands beside a reference in our schemas is annotation or a default."""
    beside: dict[str, Any] = {}
    while isinstance(schema, dict) and "$ref" in schema:
        reference: str = schema["$ref"]
        beside = {**{name: value for name, value in schema.items() if name != "$ref"}, **beside}
        target: Any = document
        if not reference.startswith("#"):
            raise ValueError(f"{reference} leads out of the document")
        for step in reference.removeprefix("#").split("/")[1:]:
            target = target[step.replace("~1", "/").replace("~0", "~")]
        schema = target
    return {**schema, **beside} if isinstance(schema, dict) else schema


def _branches(document: Schema, schema: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The alternatives, and the keywords that stand beside them."""
    keyword = next((one for one in _ALTERNATIVES if one in schema), None)
    if keyword is None:
        default = {name: schema[name] for name in ("default",) if name in schema}
        return [{name: value for name, value in schema.items() if name != "default"}], default
    around = {name: value for name, value in schema.items() if name != keyword}
    return [_resolved(document, branch) for branch in schema[keyword]], around


def _kind(branch: Any) -> str:
    return str(branch.get("type") or branch.get("title") or "of any type") if isinstance(branch, dict) else str(branch)


def _const_as_enum(schema: dict[str, Any]) -> dict[str, Any]:
    if "const" not in schema:
        return schema
    return {**{name: value for name, value in schema.items() if name != "const"}, "enum": [schema["const"]]}


def _types(before: Any, after: Any, place: str) -> Iterator[str]:
    old, new = _type_set(before), _type_set(after)
    for name in sorted(old - new):
        if not (name == "integer" and "number" in new):
            yield _found(place, f"the type {name} is no longer allowed", NEW_READER)
    for name in sorted(new - old):
        if not (name == "integer" and "number" in old):
            yield _found(place, f"the type {name} is allowed now", OLD_READER)


def _type_set(types: Any) -> set[str]:
    return {types} if isinstance(types, str) else set(types)


def _values(before: list[Any], after: list[Any], place: str) -> Iterator[str]:
    old, new = {_canonical(value) for value in before}, {_canonical(value) for value in after}
    for value in sorted(old - new):
        yield _found(place, f"the value {value} is no longer allowed", NEW_READER)
    for value in sorted(new - old):
        yield _found(place, f"the value {value} is allowed now", OLD_READER)


def _bound(keyword: str, before: Any, after: Any, place: str) -> Iterator[str]:
    if before is _ABSENT:
        narrower = True
    elif after is _ABSENT:
        narrower = False
    else:
        narrower = after > before if keyword in _LOWER_BOUNDS else after < before
    words = f"{keyword} was {_said(before)} and is {_said(after)}"
    yield _found(place, words, NEW_READER if narrower else OLD_READER)


def _came_or_went(keyword: str, before: Any, after: Any, place: str) -> Iterator[str]:
    if keyword == "default":
        yield _found(place, f"the default was {_said(before)} and is {_said(after)}: leaving it out means another thing")
    else:
        words = f"{keyword} was {_said(before)} and is {_said(after)}"
        yield _found(place, words, NEW_READER if before is _ABSENT else OLD_READER)


def _said(value: Any) -> str:
    return "absent" if value is _ABSENT else _canonical(value)


def _found(place: str, words: str, who: str | None = None) -> str:
    return f"{place or '/'}: {words}" + (f"; {who}" if who else "")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
