"""The demo as a person runs it: by its command, to its end, interrupted, and without Java."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.ids import JourneyId

pytestmark = pytest.mark.timeout(600)

COMMAND = [sys.executable, "-m", "infra.cli", "demo"]
REPOSITORY = Path(__file__).resolve().parents[2]


def belonging_to(root: Path) -> list[str]:
    """The processes that have to do with a stack: its root is in their arguments, working directory or environment."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            environment = process.environ()
            named = (environment.get(name, "") for name in ("AUGENBLICK_READY_FILE", "AUGENBLICK_CATALOGUE_DIRECTORY"))
            told = [*(process.info["cmdline"] or ()), process.cwd(), *named]
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if any(str(root) in text for text in told):
            found.append(" ".join(process.info["cmdline"] or ("?",))[:200])
    return found


def run_demo(root: Path, environment: dict[str, str], *options: str) -> dict[str, Any]:
    command = [*COMMAND, "--json", "--root", str(root), *options]
    finished = subprocess.run(  # noqa: PLW1510 (the status is looked at, with what was printed)
        command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def started(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, "--root", str(root)], cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def check(document: dict[str, Any], provider: str, currencies: tuple[str, ...]) -> None:
    price, pay, phone, unclear, doffed = document["journeys"]
    assert document["provider"] == provider
    assert [each["session"] for each in document["journeys"]] == ["price", "pay", "phone", "unclear", "doffed"]
    assert price["ended"] == "offers.found" and "CNY" in price["told"][0] and "橙汁" in price["told"][0]
    assert price["charges_in_the_providers_books"] == 0
    for paid in (pay, phone):
        assert paid["ended"] == "captured" and paid["charges_in_the_providers_books"] == 1
        [payment], [moved] = paid["payments"], paid["moved_in_the_providers_books"]
        assert (payment["provider"], payment["state"]) == (provider, "captured")
        assert payment["total"].endswith(currencies)
        assert moved == {"kind": "payment", "reference": payment["reference"], "amount": payment["total"]}
    assert [webhook["type"] for webhook in pay["webhooks"]] == ["payment.captured"] and pay["webhooks"][0]["verified"]
    assert pay["receipt"]["entries"][-1] == "closed" and not pay["receipt"]["problems"]
    assert pay["glance_to_paid_ms"] > pay["glance_to_answer_ms"] > 0
    assert {"glance", "infer codes", "process payments.commands", "deliver webhook"} <= {hop["name"] for hop in pay["hops"]}
    assert all(hop["ms"] >= 0 for each in document["journeys"] for hop in each["hops"])
    assert unclear["ended"] == "look.again" and not unclear["payments"]
    assert doffed["ended"] == "intent.refused" and not doffed["payments"]
    assert doffed["charges_in_the_providers_books"] == 0
    assert doffed["glance_to_paid_ms"] is None
    check_phone(phone)


def check_phone(phone: dict[str, Any]) -> None:
    """That it was the provider's notification, and nobody's question, that moved the payment."""
    assert [webhook["type"] for webhook in phone["webhooks"]] == ["payment.action_required", "payment.captured"]
    assert all(webhook["verified"] for webhook in phone["webhooks"])
    assert [(each["kind"], each["processed"]) for each in phone["notifications"]] == [("payment", True)]
    confirmed = phone["confirmed_on_the_phone"]
    assert 0 < confirmed["heard_after_ms"] < confirmed["next_question_after_ms"]


def test_the_demo_tells_of_every_journey_and_leaves_nothing_behind(tmp_path: Path) -> None:
    document = run_demo(tmp_path, dict(os.environ))
    check(document, "alipay", ("CNY",))
    assert [each["kind"] for each in document["journeys"][1]["notifications"]] == ["payment"]
    for journey in document["journeys"]:
        assert journey["trace"].endswith(JourneyId(journey["journey_id"]).uuid.hex)
    assert belonging_to(tmp_path) == []


def test_the_demo_pays_with_stripe(tmp_path: Path) -> None:
    check(run_demo(tmp_path, dict(os.environ), "--provider", "stripe"), "stripe", ("EUR", "SEK"))
    assert belonging_to(tmp_path) == []


def test_there_is_no_other_provider_in_the_sandbox() -> None:
    done = subprocess.run([*COMMAND, "--provider", "nobody"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 2
    assert "alipay, stripe, wechat_pay" in done.stderr


def test_the_demo_pays_with_wechat_without_java_and_says_what_that_means(tmp_path: Path) -> None:
    """On librdkafka's in-process broker: every program stays on the path but Java and Maven."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).glob("*") if Path(folder).is_dir() else ():
            if not program.name.startswith(("java", "mvn")):
                (programs / program.name).unlink(missing_ok=True)
                (programs / program.name).symlink_to(program)
    environment = {**os.environ, "PATH": str(programs)}
    environment.pop("JAVA_HOME", None)
    document = run_demo(tmp_path / "stack", environment, "--provider", "wechat_pay")
    check(document, "wechat_pay", ("CNY",))
    assert any("in memory" in note for note in document["notes"])
    assert belonging_to(tmp_path / "stack") == []


def wait_for(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Until the demo says on standard error that it has come so far."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"the demo ended before it said {words!r}")


@pytest.mark.parametrize("words", [b"starting Kafka", b"starting the platform", b"A glance"])
def test_ctrl_c_ends_everything(tmp_path: Path, words: bytes) -> None:
    process = started(tmp_path)
    wait_for(process, words)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()[-2000:]
    assert b"Interrupted" in errors
    assert b"Traceback" not in errors
    assert belonging_to(tmp_path) == []


def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    process = started(tmp_path)
    wait_for(process, b"A glance")
    assert len(belonging_to(tmp_path)) > 10
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while belonging_to(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert belonging_to(tmp_path) == []
