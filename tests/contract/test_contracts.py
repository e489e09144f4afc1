"""The checked-in contracts are what the code says, valid by their own standards, and compatible with what was released."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker

from infra import contracts
from infra.contract_examples import examples
from schemas.errors import PROBLEMS
from schemas.events import (
    CATALOGUE,
    Event,
    from_http,
    from_kafka,
    from_structured,
    to_http,
    to_kafka,
    to_structured,
)
from schemas.topics import TOPICS

DATA = Path(__file__).parent / "data"
TYPES = list(CATALOGUE)
TYPES_WITH_DATA = [name for name, entry in CATALOGUE.items() if entry.data is not None]


def test_the_checked_in_files_are_current() -> None:
    assert contracts.stale() == {}, "run `python -m infra.contracts write`"


def test_nothing_published_was_changed_incompatibly() -> None:
    assert contracts.broken_promises() == []


# The AsyncAPI document.


def test_the_asyncapi_document_is_valid() -> None:
    official = json.loads((DATA / "asyncapi-3.0.0.schema.json").read_text(encoding="utf-8"))
    errors = Draft7Validator(official).iter_errors(contracts.asyncapi())
    assert [f"{error.json_path}: {error.message[:300]}" for error in errors] == []


def test_the_validator_would_notice_a_wrong_document() -> None:
    official = json.loads((DATA / "asyncapi-3.0.0.schema.json").read_text(encoding="utf-8"))
    document = contracts.asyncapi()
    document["operations"]["gateway.send.glasses.sightings"]["action"] = "shout"
    document["channels"]["glasses.sightings"]["bindings"]["kafka"]["partitions"] = "four"
    assert not Draft7Validator(official).is_valid(document)


def test_every_reference_leads_somewhere() -> None:
    document = contracts.asyncapi()
    references = list(_references(document))
    assert len(references) > 50
    for reference in references:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref" and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_the_document_is_complete() -> None:
    document = contracts.asyncapi()
    assert set(document["channels"]) == {topic.name for topic in TOPICS}
    assert set(document["components"]["messages"]) == set(CATALOGUE)
    shown = [name for channel in document["channels"].values() for name in channel["messages"]]
    assert sorted(shown) == sorted(CATALOGUE)
    for topic in TOPICS:
        actions = {one["action"] for name, one in document["operations"].items() if name.endswith(f".{topic.name}")}
        assert actions == {"send", "receive"}, topic.name


@pytest.mark.parametrize("name", TYPES)
def test_the_examples_in_the_document_fit_its_schemas(name: str) -> None:
    document = contracts.asyncapi()
    message = document["components"]["messages"][name]
    for part in ("headers", "payload"):
        validator = Draft7Validator({**message[part], "components": document["components"]}, format_checker=FormatChecker())
        for example in message["examples"]:
            assert [error.message for error in validator.iter_errors(example[part])] == []


# The JSON Schemas.


@pytest.mark.parametrize("name", TYPES)
def test_each_schema_is_a_schema(name: str) -> None:
    schema = contracts.schema(CATALOGUE[name])
    assert schema["$schema"] == contracts.DIALECT
    assert schema["$id"] == CATALOGUE[name].dataschema
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", TYPES_WITH_DATA)
def test_each_example_fits_its_schema_and_no_more(name: str) -> None:
    validator = Draft202012Validator(contracts.schema(CATALOGUE[name]), format_checker=FormatChecker())
    data = json.loads(examples()[name].data)
    assert [error.message for error in validator.iter_errors(data)] == []
    assert not validator.is_valid({**data, "a_property_nobody_knows": 1})
    required = contracts.schema(CATALOGUE[name]).get("required", [])
    for missing in required:
        assert not validator.is_valid({key: value for key, value in data.items() if key != missing})


# The examples.


@pytest.mark.parametrize("name", TYPES)
def test_each_example_comes_back_from_every_binding(name: str) -> None:
    event = examples()[name]
    assert from_kafka(*to_kafka(event)) == event
    assert from_http(*to_http(event)) == event
    _same(from_structured(json.loads(json.dumps(to_structured(event)))), event)


@pytest.mark.parametrize("name", TYPES)
def test_each_checked_in_example_is_an_event_and_its_data_fits(name: str) -> None:
    document = json.loads((contracts.ROOT / f"docs/contracts/examples/{name}.json").read_text(encoding="utf-8"))
    event = from_structured(document)
    _same(event, examples()[name])
    if (model := CATALOGUE[name].data) is not None:
        data = event.decode(model)
        assert model.model_validate_json(data.model_dump_json(exclude_none=True)) == data


def _same(one: Event, other: Event) -> None:
    """Equal, but for the spelling of JSON."""
    if one.datacontenttype == "application/json":
        assert json.loads(one.data) == json.loads(other.data)
        one, other = one.model_copy(update={"data": b""}), other.model_copy(update={"data": b""})
    assert one == other


# The pages.


def test_every_problem_is_documented() -> None:
    page = contracts.errors()
    for code, entry in PROBLEMS.items():
        assert f"| `{code}` | {entry.status} | {entry.title} |" in page


# The generator.


def test_what_is_stale_is_found_and_written(tmp_path: Path) -> None:
    contracts.write(tmp_path)
    assert contracts.stale(tmp_path) == {}
    errors = tmp_path / "docs/errors.md"
    errors.write_text(errors.read_text().replace("not-found", "lost"))
    (tmp_path / "docs/contracts/schemas/gone.away.1.json").write_text("{}")
    found = contracts.stale(tmp_path)
    assert set(found) == {Path("docs/errors.md"), Path("docs/contracts/schemas/gone.away.1.json")}
    assert "+| `not-found`" in found[Path("docs/errors.md")]
    contracts.write(tmp_path)
    assert contracts.stale(tmp_path) == {}


def test_publishing_refuses_what_breaks_and_changes_nothing_then(tmp_path: Path) -> None:
    assert contracts.publish(tmp_path) == []
    file = tmp_path / contracts.PUBLISHED / "payment.due.1.json"
    schema = json.loads(file.read_text())
    schema["properties"]["urgency"] = {"type": "string"}
    file.write_text(json.dumps(schema))
    published = file.read_text()
    assert contracts.broken_promises(tmp_path) == ["payment.due.1: /urgency: the property was removed"]
    assert contracts.publish(tmp_path) == ["payment.due.1: /urgency: the property was removed"]
    assert file.read_text() == published


def test_a_published_event_may_not_disappear(tmp_path: Path) -> None:
    contracts.publish(tmp_path)
    (tmp_path / contracts.PUBLISHED / "glance.shared.1.json").write_text("{}")
    (tmp_path / contracts.PUBLISHED / "payment.due.2.json").write_text("{}")
    assert contracts.broken_promises(tmp_path) == [
        "glance.shared.1: it was published, and is no longer in the catalogue",
        "payment.due.2: it was published, and is no longer in the catalogue",
    ]


@pytest.mark.parametrize("arguments", [[], ["publish", "now"], ["read"]])
def test_wrong_arguments_are_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert contracts.main(arguments) == 2
    assert "usage" in capsys.readouterr().err
