"""The published contracts, made from the code and checked in under docs/.

    python -m infra.contracts write     make them anew
    python -m infra.contracts check     fail where the checked-in ones are stale, or break what was published
    python -m infra.contracts publish   freeze the schemas as they are, at a release; refuses incompatible changes

docs/contracts/asyncapi.json                     AsyncAPI 3.0.0: topics, who sends and receives, every message
docs/contracts/schemas/<type>.<version>.json     JSON Schema 2020-12 of one event's data
docs/contracts/published/<type>.<version>.json   the same, as released last
docs/contracts/examples/<type>.json              one event of each type, as structured JSON
docs/errors.md, docs/flow.md                     the problems, and the flow's picture
"""

import difflib
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from infra.compatibility import incompatibilities
from infra.contract_examples import examples
from schemas.errors import PROBLEM_TYPE_BASE, PROBLEMS
from schemas.events import CATALOGUE, JSON, Event, EventType, to_kafka, to_structured
from schemas.topics import TOPICS, Topic
from streams.core.topology import STAGES, mermaid

ROOT = Path(__file__).resolve().parent.parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED = Path("docs/contracts/published")

_MADE = "<!-- Made by `python -m infra.contracts write`; changes here are lost. -->\n\n"
_KEYS = {
    "device": "the id of the device the event is about",
    "payment": "the id of the payment the event is about",
}


def documents() -> dict[Path, str]:
    """Every file that `write` makes, with its content, by its path within the repository."""
    made = {schema_path(entry): _json(schema(entry)) for entry in CATALOGUE.values()}
    made |= {Path(f"docs/contracts/examples/{name}.json"): _json(to_structured(event)) for name, event in examples().items()}
    made[Path("docs/contracts/asyncapi.json")] = _json(asyncapi())
    made[Path("docs/errors.md")] = errors()
    made[Path("docs/flow.md")] = flow()
    return made


def schema_path(entry: EventType) -> Path:
    return Path(f"docs/contracts/schemas/{entry.name}.{entry.version}.json")


# JSON Schema.


def schema(entry: EventType) -> dict[str, Any]:
    """Of one event's data. What a reader accepts: an optional property may be left out."""
    head = {"$schema": DIALECT, "$id": entry.dataschema, "title": entry.name, "description": entry.summary}
    if entry.data is None:
        return {**head, "type": "string", "contentEncoding": "base64", "contentMediaType": entry.content_type}
    body = entry.data.model_json_schema(mode="validation")
    return {**head, **{name: value for name, value in body.items() if name not in head}}


# AsyncAPI.


def asyncapi() -> dict[str, Any]:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Augenblick",
            "version": tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"],
            "description": (
                "Events of the platform on Kafka: CloudEvents 1.0 in binary mode (attributes are `ce_` headers, the value is the "
                "data)."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {
            "kafka": {
                "host": "{brokers}",
                "protocol": "kafka",
                "description": "Apache Kafka, as KAFKA_BOOTSTRAP_SERVERS names it.",
                "variables": {"brokers": {"default": "localhost:9092", "description": "host:port"}},
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": _operations(),
        "components": {
            "messages": {entry.name: _message(entry) for entry in CATALOGUE.values()},
            "schemas": {"CloudEvent": _headers(), **_payloads()},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    kept = "Values are personal: they are never copied out of Kafka. " if topic.sensitive else ""
    return {
        "address": topic.name,
        "description": f"{kept}The key is {_KEYS[topic.key]}; events of one key are handled in order.",
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {
            entry.name: {"$ref": f"#/components/messages/{entry.name}"} for entry in CATALOGUE.values() if entry.topic == topic
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": int(topic.retention.total_seconds() * 1000),
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def _operations() -> dict[str, Any]:
    return {
        f"{stage.name}.{action}.{topic.name}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic.name}"},
            "summary": stage.summary,
            "tags": [{"name": stage.name}],
        }
        for stage in STAGES
        for action, topics in (("receive", stage.consumes), ("send", stage.emits))
        for topic in topics
    }


def _message(entry: EventType) -> dict[str, Any]:
    event = examples()[entry.name]
    headers, _ = to_kafka(event)
    example: dict[str, Any] = {"name": "example", "headers": {name: value.decode() for name, value in headers}}
    if entry.data is not None:
        example["payload"] = json.loads(event.data)
        payload = {"$ref": f"#/components/schemas/{entry.data.__name__}"}
    else:
        payload = {"type": "string", "format": "binary", "description": f"{entry.content_type}, as it is"}
        example["payload"] = "(the bytes)"
    return {
        "name": entry.name,
        "title": entry.name,
        "summary": entry.summary,
        "description": "Sent by glasses." if entry.from_devices else "Sent by the platform only.",
        "contentType": entry.content_type,
        "headers": {
            "type": "object",
            "allOf": [{"$ref": "#/components/schemas/CloudEvent"}],
            "properties": {
                "ce_type": {"type": "string", "const": entry.name},
                "ce_dataschema": {"type": "string", "const": entry.dataschema},
                "content-type": {"type": "string", "const": entry.content_type},
            },
        },
        "payload": payload,
        "bindings": {
            "kafka": {"key": {"type": "string", "description": _KEYS[entry.topic.key]}, "bindingVersion": "0.5.0"},
        },
        "examples": [example],
    }


def _headers() -> dict[str, Any]:
    """The envelope as headers of a Kafka record: all text, and what has no value is left out."""
    envelope = Event.model_json_schema(mode="validation")
    definitions = envelope["$defs"]
    properties: dict[str, Any] = {}
    for name, described in envelope["properties"].items():
        if name in ("data", "datacontenttype"):
            continue
        choices = [choice for choice in described.get("anyOf", [described]) if choice.get("type") != "null"]
        choice = choices[0]
        if "$ref" in choice:
            choice = definitions[choice["$ref"].rpartition("/")[2]]
        properties[f"ce_{name}"] = {key: value for key, value in choice.items() if key not in ("title", "default")}
    return {
        "type": "object",
        "description": "CloudEvents 1.0, Kafka binding, binary mode.",
        "properties": {**properties, "content-type": {"type": "string", "description": "the data's media type"}},
        "required": [f"ce_{name}" for name in ("specversion", *envelope["required"])],
    }


def _payloads() -> dict[str, Any]:
    """Every data model and what it is made of, once. AsyncAPI's own schemas are of draft 07: there, a list with a schema for
    each place is written `items`."""
    models: list[type[BaseModel]] = list({entry.data: None for entry in CATALOGUE.values() if entry.data is not None})
    _, together = models_json_schema([(model, "validation") for model in models], ref_template="#/components/schemas/{model}")
    shapes: dict[str, Any] = _as_draft_07(together["$defs"])
    return shapes


def _as_draft_07(value: Any) -> Any:
    if isinstance(value, dict):
        return {"items" if name == "prefixItems" else name: _as_draft_07(inner) for name, inner in value.items()}
    return [_as_draft_07(inner) for inner in value] if isinstance(value, list) else value


# Pages.


def errors() -> str:
    rows = [f"| `{code}` | {entry.status} | {entry.title} | {entry.remedy} |" for code, entry in PROBLEMS.items()]
    return (
        f"{_MADE}# Problems\n\n"
        "Every refusal at an edge is a problem details answer (RFC 9457, `application/problem+json`). `type` is "
        f"`{PROBLEM_TYPE_BASE}` and the code; `code` is the code alone; `detail` says what is the matter this time, `errors` "
        "which fields do not fit. Codes are never given another meaning.\n\n"
        "| code | status | what it means | what to do |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def flow() -> str:
    rows = [
        f"| `{topic.name}` | {topic.key} | {topic.partitions} | {_duration(topic)} | "
        f"{', '.join(f'`{entry.name}`' for entry in CATALOGUE.values() if entry.topic == topic)} |"
        for topic in TOPICS
    ]
    return (
        f"{_MADE}# The flow\n\nStages, their topics, and whom they talk to outside.\n\n```mermaid\n{mermaid()}```\n\n"
        "| topic | key | partitions | kept | events |\n| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n\n"
        "The same for machines: [AsyncAPI](contracts/asyncapi.json), [JSON Schemas](contracts/schemas), "
        "[examples](contracts/examples).\n"
    )


def _duration(topic: Topic) -> str:
    minutes = int(topic.retention.total_seconds() // 60)
    number, unit = (minutes // 1440, "day") if minutes >= 1440 else (minutes, "minute")
    return f"{number} {unit}{'s' if number != 1 else ''}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# Writing, checking, publishing.


def stale(root: Path = ROOT) -> dict[Path, str]:
    """The files that are not what the code says, with the beginning of the difference."""
    found = {}
    made = documents()
    for path, content in made.items():
        file = root / path
        there = file.read_text(encoding="utf-8") if file.exists() else ""
        if there != content:
            lines = difflib.unified_diff(there.splitlines(), content.splitlines(), "checked in", "made now", lineterm="", n=1)
            found[path] = "\n".join(list(lines)[:20])
    return found | dict.fromkeys(_left_over(root, set(made)), "nothing in the code makes this file")


def _left_over(root: Path, made: set[Path]) -> list[Path]:
    there = [*(root / "docs/contracts/schemas").glob("*.json"), *(root / "docs/contracts/examples").glob("*.json")]
    return sorted(path.relative_to(root) for path in there if path.relative_to(root) not in made)


def broken_promises(root: Path = ROOT) -> list[str]:
    """What the code changed incompatibly since the last release, one sentence each. A published version stays as it was; a type
    goes on under a higher version, and never disappears."""
    found = []
    for file in sorted((root / PUBLISHED).glob("*.json")):
        name, _, version = file.stem.rpartition(".")
        entry = CATALOGUE.get(name)
        if entry is None or entry.version < int(version):
            found.append(f"{file.stem}: it was published, and is no longer in the catalogue")
        elif entry.version == int(version):
            published = json.loads(file.read_text(encoding="utf-8"))
            found += [f"{file.stem}: {problem}" for problem in incompatibilities(published, schema(entry))]
    return found


def write(root: Path = ROOT) -> None:
    made = documents()
    for path, content in made.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    for path in _left_over(root, set(made)):
        (root / path).unlink()


def publish(root: Path = ROOT) -> list[str]:
    """Freezes the schemas as they are. Returns why not, where something published would break; then nothing is written."""
    if broken := broken_promises(root):
        return broken
    for entry in CATALOGUE.values():
        path = root / PUBLISHED / schema_path(entry).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_json(schema(entry)), encoding="utf-8")
    return []


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write"]:
            write()
            return _report([], broken_promises())
        case ["check"]:
            differences = [f"{path} is stale:\n{difference}" for path, difference in stale().items()]
            return _report(differences, broken_promises())
        case ["publish"]:
            return _report([], publish())
        case _:
            print("usage: python -m infra.contracts write|check|publish", file=sys.stderr)
            return 2


def _report(differences: list[str], broken: list[str]) -> int:
    for difference in differences:
        print(difference, file=sys.stderr)
    if differences:
        print("Run `python -m infra.contracts write`, and check the files in.", file=sys.stderr)
    for problem in broken:
        print(f"breaks what was published: {problem}", file=sys.stderr)
    if broken:
        print("Raise the event type's version in schemas/events.py, and keep the old shape readable.", file=sys.stderr)
    return 1 if differences or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
