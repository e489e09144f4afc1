"""The container, its compose file and its chart, as far as their text tells."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.triton.profiles import PROFILES
from infra.triton.server import TRITON

HELM = TRITON / "helm"
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;]+)", re.MULTILINE)


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((TRITON / "compose.yaml").read_text())["services"]
    return found


def locked(path: Path) -> dict[str, str]:
    return dict(PINNED.findall(path.read_text()))


def test_every_profile_has_a_service_and_a_lock_file() -> None:
    assert {service["profiles"][0] for service in services().values()} == set(PROFILES)
    assert {service["build"]["args"]["PROFILE"] for service in services().values()} == set(PROFILES)
    assert {path.stem for path in (TRITON / "container").glob("*.lock")} == set(PROFILES)


@pytest.mark.parametrize("name", services())
def test_a_service_may_do_nothing_that_it_need_not(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] != "0"
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["pids_limit"] > 0
    assert service["ulimits"]["core"] == 0
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert [volume["target"] for volume in service["volumes"] if not volume.get("read_only")] == ["/var/cache/augenblick"]


def test_the_image_is_pinned_hashed_and_not_roots() -> None:
    text = (TRITON / "Dockerfile").read_text()
    assert re.search(r"nvidia/tritonserver:\d\d\.\d\d-py3", text)
    assert re.search(r"^ARG TRITON$", text, re.MULTILINE), "whoever builds says where it is taken from"
    assert "--require-hashes" in text
    users = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert users
    assert users[-1] != "0"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_container_runs_the_versions_that_the_embedded_stack_was_tested_with(profile: str) -> None:
    path = TRITON / "container" / f"{profile}.lock"
    container, embedded = locked(path), locked(TRITON / "requirements.lock")
    shared = container.keys() & embedded.keys()
    assert {"numpy", "opencv-python-headless", "zxing-cpp", "rapidocr", "usearch"} <= shared
    assert {name: container[name] for name in shared} == {name: embedded[name] for name in shared}
    blocks = re.split(r"^(?=[A-Za-z0-9])", path.read_text(), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if block.strip())
    assert "://" not in path.read_text()


@pytest.mark.parametrize("values", ["values.yaml", "values-gpu.yaml"])
def test_the_charts_values_fit_their_schema(values: str) -> None:
    given = yaml.safe_load((HELM / "values.yaml").read_text()) | yaml.safe_load((HELM / values).read_text())
    jsonschema.validate(given, json.loads((HELM / "values.schema.json").read_text()))


def test_the_gpu_values_change_only_what_there_is() -> None:
    assert (
        yaml.safe_load((HELM / "values-gpu.yaml").read_text()).keys() <= yaml.safe_load((HELM / "values.yaml").read_text()).keys()
    )
