"""Triton's chart as helm itself understands it."""

import subprocess

import pytest
import yaml

from infra.triton import profiles
from infra.triton.server import TRITON
from infra.triton.vision.index import INDEXES_AT_MOST, INDEXES_VARIABLE
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
    documents = [document for document in yaml.safe_load_all(made) if document]
    found = {document["kind"]: document for document in documents}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= found.keys()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/dev/shm", "/var/cache/augenblick"}
    assert f"{INDEXES_VARIABLE}=/var/cache/augenblick" in (TRITON / "Dockerfile").read_text()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["indexes"]["emptyDir"] == {"sizeLimit": "4Gi"}
    assert 4 / 3 * INDEXES_AT_MOST <= 4 << 30, "a pod that writes more is ended"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/models/codes/ready"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (values == "values-gpu.yaml")


SNAPSHOT_MB = 60
"""Of 200 products, all of which were looked for in frames: model_repository/match/config.pbtxt."""
MODELS_MB = {"cpu": 1500, "gpu": 5000}


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_a_pod_has_the_memory_that_its_models_may_keep(profile: str) -> None:
    values = [str(CHART / name) for name in VALUES[: 1 + (profile == "gpu")]]
    chosen = [part for name in values for part in ("--values", name)]
    made = helm("template", "glance", str(CHART), "--kube-version", "1.30.0", *chosen)
    pods = next(each for each in yaml.safe_load_all(made) if each and each["kind"] == "Deployment")["spec"]["template"]["spec"]
    [limits] = [container["resources"]["limits"] for container in pods["containers"]]
    in_memory = [volume["emptyDir"] for volume in pods["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
    match = profiles.configurations(profile)["match"]
    gpus = int(limits.get("nvidia.com/gpu", 1))
    instances = sum(group.count * (gpus if group.kind == group.KIND_GPU else 1) for group in match.instance_group)
    kept = int(match.parameters["snapshots_kept"].string_value) * instances * SNAPSHOT_MB
    assert megabytes(limits["memory"]) >= kept + MODELS_MB[profile] + sum(megabytes(each["sizeLimit"]) for each in in_memory)


def megabytes(quantity: str) -> float:
    return int(quantity[:-2]) * {"Mi": 2**20, "Gi": 2**30}[quantity[-2:]] / 1e6


@pytest.mark.parametrize("release", ["glance", "g" * 53])
def test_clients_find_every_pod_by_one_name(release: str) -> None:
    made = helm("template", release, str(CHART), "--kube-version", "1.30.0")
    documents = [document for document in yaml.safe_load_all(made) if document]
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    services = {document["metadata"]["name"]: document["spec"] for document in documents if document["kind"] == "Service"}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert len(services) == 2 and all(len(name) <= 63 for name in services)
    [(name, of_pods)] = [(name, service) for name, service in services.items() if service.get("clusterIP") == "None"]
    assert name.endswith("-triton-pods")
    assert of_pods["selector"].items() <= labels.items()
    assert [(port["port"], ports[port["targetPort"]]) for port in of_pods["ports"]] == [(8001, 8001)]
    assert not of_pods.get("publishNotReadyAddresses"), "a pod that is not ready takes no frames"


def test_values_that_are_none_are_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        helm("template", "glance", str(CHART), "--set", "replicas=many")
    assert "replicas" in refused.value.stderr
