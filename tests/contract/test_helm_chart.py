"""Triton's chart as helm itself understands it."""

import subprocess

import pytest
import yaml

from infra.triton.server import TRITON
from tests.support.peers import installed

CHART = TRITON / "helm"
VALUES = ("values.yaml", "values-gpu.yaml")


def helm(*arguments: str) -> str:
    command = [str(installed(".peers/bin/helm")), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_nothing_to_complain_about(values: str) -> None:
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict", "--values", str(CHART / values))


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_makes_pods_that_run_without_privileges(values: str) -> None:
    made = helm("template", "glance", str(CHART), "--kube-version", "1.30.0", "--values", str(CHART / values))
    found = {document["kind"]: document for document in yaml.safe_load_all(made) if document}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= found.keys()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/models/codes/ready"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (values == "values-gpu.yaml")


def test_values_that_are_none_are_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        helm("template", "glance", str(CHART), "--set", "replicas=many")
    assert "replicas" in refused.value.stderr
