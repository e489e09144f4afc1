"""`augenblick drill`, small: payments while roles are killed, and four books that agree in the end."""

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


def test_twenty_payments_and_four_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    options = ["--payments", "20", "--kills", "4", "--devices", "4", "--root", str(tmp_path), "--json"]
    done = subprocess.run([*COMMAND, *options], cwd=CHECKOUT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["findings"] == []
    assert report["killed"]["total"] == 4
    for book in report["books"]:
        assert book["entries"] >= 20, book
        assert [book[fault] for fault in ("lost", "doubled", "unknown", "different")] == [0, 0, 0, 0]


def test_a_real_account_is_not_touched(tmp_path: Path) -> None:
    environment = {**os.environ, "AUGENBLICK_STRIPE_API_KEY": "sk_live_somebodys"}
    options = ["--payments", "1", "--kills", "0", "--root", str(tmp_path)]
    done = subprocess.run(
        [*COMMAND, *options], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "unset AUGENBLICK_STRIPE_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_books_of_an_earlier_drill_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [*COMMAND, "--root", str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
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
        _, errors = drill.communicate(timeout=90)
    finally:
        drill.kill()
        drill.wait()
    assert drill.returncode == 130, errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_wrong_numbers_are_refused() -> None:
    done = subprocess.run([*COMMAND, "--payments", "0"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--payments" in done.stderr
