"""`augenblick drill`, small: payments while roles and servers die and the provider goes wrong, and four books that agree in the
end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "infra.cli", "drill"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


PLAN = {"payments": 30, "kills": 6, "faults": 0.2, "kafka-restarts": 1, "postgres-restarts": 1, "devices": 5, "seed": 7}


def test_thirty_payments_survive_kills_outages_and_a_provider_on_its_worst_day(tmp_path: Path) -> None:
    # Servers of somebody's own, which a drill does not even look at: these would not answer.
    theirs = {"DATABASE_URL": "postgresql://somebody@127.0.0.1:9/theirs", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    options = [part for name, value in PLAN.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        [*COMMAND, *options, "--root", str(tmp_path), "--json"],
        cwd=CHECKOUT,
        env={**os.environ, **theirs},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["findings"] == []
    assert (report["killed"]["total"], report["killed"]["kafka"], report["killed"]["postgres"]) == (6, 1, 1)
    assert report["disturbed"]["alipay-sandbox was started again"] == 1
    assert sum(report["faults_done"].values()) > 0
    books = {book["book"]: book for book in report["books"]}
    for book in books.values():
        assert [book[fault] for fault in ("lost", "doubled", "unknown", "different")] == [0, 0, 0, 0]
    assert books["database"]["entries"] >= 30
    # One of the wearers has no money: what is declined is in no other book.
    assert report["states"]["declined"] > 0
    assert (
        books["provider"]["entries"]
        == books["merchants"]["entries"]
        == books["database"]["entries"] - report["states"]["declined"]
    )
    assert books["provider"]["taken"] == books["database"]["taken"] == books["merchants"]["taken"]
    assert books["provider"]["given_back"] == books["database"]["given_back"] == books["merchants"]["given_back"]


def test_books_of_an_earlier_drill_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [*COMMAND, "--root", str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 1
    assert "choose a new directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    options = ["--payments", "100000", "--kills", "0", "--root", str(tmp_path)]
    drill = subprocess.Popen([*COMMAND, *options], cwd=CHECKOUT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert drill.stderr is not None
        for line in drill.stderr:
            if "100000 payments" in line:
                break
        children = psutil.Process(drill.pid).children(recursive=True)
        assert len(children) > 10
        drill.send_signal(signal.SIGINT)
        _, errors = drill.communicate(timeout=180)
    finally:
        drill.kill()
        drill.wait()
    assert drill.returncode == 130, errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_wrong_numbers_are_refused() -> None:
    done = subprocess.run([*COMMAND, "--payments", "0"], cwd=CHECKOUT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 2
    assert "--payments" in done.stderr
