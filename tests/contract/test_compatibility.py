"""Every kind of incompatible change is found, with who would break; what changes nothing for anybody is let through."""

from typing import Any

import pytest

from infra import contracts
from infra.compatibility import NEW_READER, OLD_READER, incompatibilities
from schemas.events import CATALOGUE


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


def within(schema: Any) -> dict[str, Any]:
    """The same schema at every place where schemas are nested."""
    return {
        **record(direct=schema, listed={"type": "array", "items": schema}, placed={"type": "array", "prefixItems": [schema]}),
        "$defs": {"Referred": schema},
        "allOf": [{"properties": {"referred": {"$ref": "#/$defs/Referred"}}}],
    }


TEXT = {"type": "string"}

BREAKING = [
    ("property removed", record(a=TEXT, b=TEXT), record(a=TEXT), "/b: the property was removed"),
    ("required property added", record(a=TEXT), record(a=TEXT, b=TEXT), NEW_READER),
    ("optional property added to a closed object", record(a=TEXT), {**record(a=TEXT, b=TEXT), "required": ["a"]}, OLD_READER),
    ("became required", {**record(a=TEXT), "required": []}, record(a=TEXT), NEW_READER),
    ("became optional", record(a=TEXT), {**record(a=TEXT), "required": []}, OLD_READER),
    ("undeclared became required", {"type": "object"}, {"type": "object", "required": ["a"]}, NEW_READER),
    ("closed", {"type": "object"}, {"type": "object", "additionalProperties": False}, NEW_READER),
    ("opened", record(a=TEXT), {**record(a=TEXT), "additionalProperties": True}, OLD_READER),
    (
        "further properties narrowed",
        {"additionalProperties": {"type": "string", "maxLength": 5}},
        {"additionalProperties": {"type": "string", "maxLength": 4}},
        NEW_READER,
    ),
    (
        "added property does not fit the further ones",
        {"additionalProperties": TEXT},
        {"properties": {"a": {"type": "integer"}}, "additionalProperties": TEXT},
        "the type string is no longer allowed",
    ),
    ("type changed", TEXT, {"type": "integer"}, NEW_READER),
    ("type narrowed", {"type": "number"}, {"type": "integer"}, NEW_READER),
    ("type widened", {"type": "integer"}, {"type": "number"}, OLD_READER),
    ("type list narrowed", {"type": ["string", "null"]}, {"type": ["string"]}, NEW_READER),
    ("type demanded", {}, TEXT, NEW_READER),
    ("type freed", TEXT, {}, OLD_READER),
    ("enum narrowed", {"enum": ["a", "b"]}, {"enum": ["a"]}, NEW_READER),
    ("enum widened", {"enum": ["a"]}, {"enum": ["a", "b"]}, OLD_READER),
    ("enum demanded", TEXT, {"type": "string", "enum": ["a"]}, NEW_READER),
    ("enum freed", {"type": "string", "enum": ["a"]}, TEXT, OLD_READER),
    ("const changed", {"const": "a"}, {"const": "b"}, NEW_READER),
    ("pattern changed", {"pattern": "^a$"}, {"pattern": "^b$"}, "cannot be judged"),
    ("pattern added", {}, {"pattern": "^a$"}, NEW_READER),
    ("pattern removed", {"pattern": "^a$"}, {}, OLD_READER),
    ("format changed", {"format": "date"}, {"format": "date-time"}, "cannot be judged"),
    ("minimum raised", {"minimum": 1}, {"minimum": 2}, NEW_READER),
    ("minimum lowered", {"minimum": 1}, {"minimum": 0}, OLD_READER),
    ("maximum lowered", {"maximum": 9}, {"maximum": 8}, NEW_READER),
    ("maximum raised", {"maximum": 9}, {"maximum": 10}, OLD_READER),
    ("maximum added", {}, {"maximum": 9}, NEW_READER),
    ("maximum removed", {"maximum": 9}, {}, OLD_READER),
    ("maxLength lowered", {"maxLength": 9}, {"maxLength": 8}, NEW_READER),
    ("minItems raised", {"minItems": 0}, {"minItems": 1}, NEW_READER),
    ("multipleOf changed", {"multipleOf": 5}, {"multipleOf": 10}, "cannot be judged"),
    ("uniqueItems demanded", {}, {"uniqueItems": True}, NEW_READER),
    ("null allowed", TEXT, {"anyOf": [TEXT, {"type": "null"}]}, "the alternative null was added"),
    ("null forbidden", {"anyOf": [TEXT, {"type": "null"}]}, TEXT, "the alternative null was removed"),
    (
        "alternative narrowed",
        {"anyOf": [TEXT, {"type": "null"}]},
        {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
        NEW_READER,
    ),
    ("places removed", {"prefixItems": [TEXT, TEXT]}, {"prefixItems": [TEXT]}, "1 parts instead of 2"),
    ("default changed", {"default": 1}, {"default": 2}, "means another thing"),
    ("default removed", {"default": 1}, {}, "means another thing"),
    ("logic changed", {"not": {"const": 1}}, {"not": {"const": 2}}, "cannot be judged"),
    ("everything refused", True, False, "true became false"),
]

HARMLESS = [
    ("nothing", record(a=TEXT), record(a=TEXT)),
    ("words", {"title": "A", "description": "a", "examples": [1]}, {"title": "B", "description": "b"}),
    ("order of required", {"required": ["a", "b"]}, {"required": ["b", "a"]}),
    ("order of values", {"enum": ["a", "b"]}, {"enum": ["b", "a"]}),
    ("order of alternatives", {"anyOf": [TEXT, {"type": "null"}]}, {"anyOf": [{"type": "null"}, TEXT]}),
    ("one value, written otherwise", {"const": "a"}, {"enum": ["a"]}),
    ("one type, written otherwise", {"type": "string"}, {"type": ["string"]}),
    ("one alternative, written otherwise", TEXT, {"anyOf": [TEXT]}),
    ("optional property added to an open object", {"type": "object"}, {"type": "object", "properties": {"a": TEXT}}),
    (
        "definition renamed",
        {"$defs": {"A": TEXT}, "properties": {"a": {"$ref": "#/$defs/A"}}},
        {"$defs": {"B": TEXT}, "properties": {"a": {"$ref": "#/$defs/B"}}},
    ),
    (
        "definition written in place",
        {"$defs": {"A": TEXT}, "properties": {"a": {"$ref": "#/$defs/A", "description": "it"}}},
        {"properties": {"a": TEXT}},
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), [case[1:] for case in BREAKING], ids=[case[0] for case in BREAKING])
def test_breaking_changes_are_found(old: Any, new: Any, said: str) -> None:
    assert any(said in problem for problem in incompatibilities(old, new)), incompatibilities(old, new)


@pytest.mark.parametrize(("old", "new"), [case[1:3] for case in BREAKING], ids=[case[0] for case in BREAKING])
def test_breaking_changes_are_found_at_every_place(old: Any, new: Any) -> None:
    found = incompatibilities(within(old), within(new))
    for place in ("/direct", "/listed/*", "/placed/0", "/0/referred"):
        assert any(problem.startswith(place) for problem in found), place


@pytest.mark.parametrize(("old", "new"), [case[1:] for case in HARMLESS], ids=[case[0] for case in HARMLESS])
def test_harmless_changes_are_let_through(old: Any, new: Any) -> None:
    assert incompatibilities(old, new) == []
    if "$defs" not in old:
        assert incompatibilities(within(old), within(new)) == []


def test_both_sides_are_named_where_both_break() -> None:
    assert incompatibilities({"type": "string"}, {"type": "integer"}) == [
        f"/: the type string is no longer allowed; {NEW_READER}",
        f"/: the type integer is allowed now; {OLD_READER}",
    ]


def test_a_schema_that_contains_itself_is_compared() -> None:
    def tree(leaf: dict[str, Any]) -> dict[str, Any]:
        node = {"type": "object", "properties": {"leaf": leaf, "below": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}
        return {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}

    assert incompatibilities(tree(TEXT), tree(TEXT)) == []
    assert incompatibilities(tree(TEXT), tree({"type": "integer"})) != []


def test_a_reference_out_of_the_document_is_refused() -> None:
    with pytest.raises(ValueError, match="leads out"):
        incompatibilities({"$ref": "other.json"}, {})


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_schema_is_compatible_with_itself(name: str) -> None:
    assert incompatibilities(contracts.schema(CATALOGUE[name]), contracts.schema(CATALOGUE[name])) == []


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_no_property_of_a_real_schema_can_go_unnoticed(name: str) -> None:
    schema = contracts.schema(CATALOGUE[name])
    for holder in (schema, *schema.get("$defs", {}).values()):
        for property_name in holder.get("properties", {}):
            without = {key: value for key, value in holder["properties"].items() if key != property_name}
            changed = _replaced(schema, holder, {**holder, "properties": without})
            assert any(f"/{property_name}: the property was removed" in found for found in incompatibilities(schema, changed))


def _replaced(schema: dict[str, Any], old: Any, new: Any) -> dict[str, Any]:
    if schema is old:
        return dict(new)
    definitions = {name: new if value is old else value for name, value in schema["$defs"].items()}
    return {**schema, "$defs": definitions}
