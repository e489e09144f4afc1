"""The documents say what is there: links lead somewhere, codes and settings are complete, commands exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from infra.cli import app
from schemas.errors import PROBLEMS
from streams.core.settings import Settings, variable
from streams.core.telemetry.names import METRICS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "connectors").rglob("*.md")])
SOURCES = ("schemas", "connectors", "streams", "migrations", "infra", "tests", "benchmarks")
names = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(?:\.venv/bin/)?(augenblick [^`]+)`")


def anchors(document: Path) -> set[str]:
    """As GitHub makes them from headings."""
    text = _CODE.sub("", document.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[str]:
    """Every `augenblick …` in a text, in code spans and in shell blocks, as far as it is words and options."""
    lines = [line for block in _SHELL.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    found = [match[1] for line in lines if (match := re.match(r"(?:\.venv/bin/)?(augenblick .*)", line))]
    return found + _SPAN.findall(_CODE.sub("", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(_CODE.sub("", document.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_commands_exist(document: Path) -> None:
    for text in commands(document.read_text()):
        command = get_command(app)
        for word in shlex.split(text, comments=True)[1:]:
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            if word.startswith("--"):
                assert word in known | {"--help"}, f"{text}: no option {word}"
            elif hasattr(command, "commands"):
                assert word in command.commands, f"{text}: no command {word}"
                command = command.commands[word]
        assert not hasattr(command, "commands"), f"{text}: a group of commands, not one"


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_examples_in_python_are_python(document: Path) -> None:
    for number, example in enumerate(_PYTHON.findall(document.read_text()), start=1):
        compile(example, f"{document.name}, example {number}", "exec")


def test_every_problem_code_is_documented() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    assert [code for code in PROBLEMS if f"`{code}`" not in text] == []


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented(field: str) -> None:
    rows = [line for line in (ROOT / "docs/operators.md").read_text().splitlines() if line.startswith(f"| `{variable(field)}` |")]
    description = Settings.model_fields[field].description
    assert description
    assert any(row.endswith(f"| {description} |") for row in rows), f"docs/operators.md: {variable(field)}: {description}"


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/operators.md").read_text()
    assert [name for name in METRICS if f"| `{name}` |" not in text] == []


def test_decisions_that_are_referred_to_exist() -> None:
    numbers = {path.name[:4] for path in (ROOT / "docs/adr").glob("*.md")}
    files = [*DOCUMENTS, *(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))]
    referred = {number for path in files for number in re.findall(r"docs/adr/(\d{4})|ADR (\d{4})", path.read_text())}
    assert {first or second for first, second in referred} <= numbers


def test_decisions_are_short() -> None:
    long = [path.name for path in (ROOT / "docs/adr").glob("*.md") if len(path.read_text().splitlines()) > 35]
    assert not long
