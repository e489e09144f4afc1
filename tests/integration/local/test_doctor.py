"""`doctor` and `status` with real servers: what does not serve is a problem that is told, and an exit status."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.local.control import shut_down, start_daemon, wait_until_up
from infra.local.stack import CONFIGURED_BY, default_root
from infra.triton import server
from tests.support.packages import front

pytestmark = pytest.mark.timeout(600)  # the first start on a machine downloads


@pytest.fixture(autouse=True)
def no_servers_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*sum(CONFIGURED_BY.values(), ()), "AUGENBLICK_EMBEDDER_MANIFEST"):
        monkeypatch.delenv(variable, raising=False)


async def said(*arguments: str) -> tuple[int, Any]:
    """The exit status, and the JSON document."""
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def models(document: Any) -> dict[str, tuple[str, str]]:
    return {
        finding["subject"].removeprefix("model "): (finding["verdict"], finding["detail"])
        for finding in document["findings"]
        if finding["subject"].startswith("model ")
    }


async def started(root: Path, *components: str) -> None:
    pid = start_daemon(root, list(components), with_platform=False)
    await asyncio.to_thread(wait_until_up, root, pid, lambda _: None)


async def test_a_model_that_cannot_be_loaded_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGENBLICK_EMBEDDER_MANIFEST", str(tmp_path / "nothing.json"))
    await started(tmp_path, "triton")
    try:
        # Whoever asks need not have the settings that the stack was started with.
        monkeypatch.delenv("AUGENBLICK_EMBEDDER_MANIFEST")
        status, document = await said("doctor", "--root", str(tmp_path))
        found = models(document)
        assert set(found) == {path.parent.name for path in server.MODEL_REPOSITORY.glob("*/config.pbtxt")}
        assert found["codes"] == found["ocr"] == ("ok", "ready")
        missing = {name for name, (verdict, _) in found.items() if verdict == "problem"}
        assert "embedder" in missing, "and what cannot be loaded without it"
        assert found["embedder"][1].startswith("missing: ") and "nothing.json" in found["embedder"][1]
        assert status == 1 and document["problems"] >= 1
        status, document = await said("status", "--root", str(tmp_path))
        assert (status, document["healthy"], set(document["silent_models"])) == (1, False, missing)
        table = await asyncio.to_thread(CliRunner().invoke, app, ["status", "--root", str(tmp_path)])
        assert f"Models that do not serve: {', '.join(sorted(missing))}." in table.stdout
        # A server of one's own is asked for its models, too.
        address = next(each["address"] for each in document["addresses"] if each["what"].endswith("gRPC"))
        monkeypatch.setenv("TRITON_URL", address)
        monkeypatch.setenv("AUGENBLICK_EMBEDDER_MANIFEST", "some.json")
        _, document = await said("doctor", "--root", str(tmp_path / "elsewhere"))
        assert {name: verdict for name, (verdict, _) in models(document).items()} == {
            name: verdict for name, (verdict, _) in found.items()
        }, document
    finally:
        await asyncio.to_thread(shut_down, tmp_path)
    _, document = await said("doctor", "--root", str(tmp_path / "elsewhere"))
    (finding,) = [each for each in document["findings"] if each["subject"] in ("TRITON_URL", "model codes")]
    assert finding["verdict"] == "problem" and f"{address} does not answer" in finding["detail"]


async def test_what_is_left_out_on_purpose_is_no_problem_and_a_chosen_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGENBLICK_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert default_root() == tmp_path
    await started(tmp_path, "postgres", "triton")
    try:
        status, document = await said("status")
        assert (status, document["healthy"], document["silent_models"]) == (0, True, {})
        _, document = await said("doctor")
        found = models(document)
        assert {name for name, (verdict, _) in found.items() if verdict == "ok"} == set(found) > {"codes", "match"}
        assert "left out" in found["embedder"][1]
        # A command that needs the database meets that stack's: an empty one.
        assert await command("migrate") == (0, "")
        assert await command("catalogue", "list") == (0, "")
        monkeypatch.delenv("AUGENBLICK_ROOT")
        monkeypatch.setenv("AUGENBLICK_HOME", str(tmp_path / "nobody's"))
        status, errors = await command("catalogue", "list")
        assert status == 1 and "DATABASE_URL is not set" in errors and "AUGENBLICK_ROOT" in errors
    finally:
        await asyncio.to_thread(shut_down, tmp_path)


async def test_a_catalogue_that_was_damaged_is_a_problem_until_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGENBLICK_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    await started(tmp_path, "postgres", "triton")

    async def found() -> list[dict[str, str]]:
        _, document = await said("doctor")
        return [finding for finding in document["findings"] if finding["subject"] == "Catalogues"]

    try:
        assert await found() == [], "there is no table to look into yet"
        assert await command("migrate") == (0, "")
        assert await command("merchant", "add", "Nobody's shop") == (0, "")
        front(7).save(tmp_path / "7.png")
        (tmp_path / "list.csv").write_text("product_id,title,language,picture\np7,Package,en,7.png\n")
        assert await command("catalogue", "import", "list.csv", "--merchant", "Nobody's shop") == (0, "")
        (finding,) = await found()
        assert (finding["verdict"], finding["detail"]) == ("ok", f"1 current, whole in {tmp_path / 'catalogues'}")
        (place,) = (tmp_path / "catalogues").glob("mer_*")
        blobs = place / "features.bin"
        was = blobs.read_bytes()
        blobs.write_bytes(was[:500] + bytes(50) + was[550:])
        for damaged in ("has damaged features (another SHA-256)", "is not there, or not all of it"):
            (finding,) = await found()
            merchant = place.name.partition("-")[0]
            assert finding["verdict"] == "problem" and finding["detail"].startswith(f"snapshot 1 of {merchant}: {place} ")
            assert finding["detail"].endswith(damaged)
            remedy = finding["remedy"].split("`")[1].split()
            shutil.rmtree(place, ignore_errors=True)
        assert remedy[0] == "augenblick"
        status, told = await command(*remedy[1:])
        assert status == 0 and "it is made again" in told, told
        (finding,) = await found()
        assert finding["verdict"] == "ok"
    finally:
        await asyncio.to_thread(shut_down, tmp_path)


async def command(*arguments: str) -> tuple[int, str]:
    """Its exit status and what it says of it, in a process of its own: commands put what they found into their environment."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "infra.cli", *arguments, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()
