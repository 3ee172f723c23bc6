"""Kubernetes manifests: valid by the schemas of several versions, true to each other and to the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.integration.compose import ROOT

K8S = ROOT / "docker/k8s"
BASE = K8S / "base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
# The oldest and the newest that the manifests are meant for.
VERSIONS = ("1.28", "1.34", "1.37")
OF_OPERATOR = {"ServiceMonitor", "PrometheusRule"}  # the Prometheus operator's, without a schema here

Manifest = dict[str, Any]


def manifests() -> dict[tuple[str, str], Manifest]:
    """(kind, name) → manifest, of all files of the base."""
    documents = [
        document
        for file in KUSTOMIZATION["resources"]
        for document in yaml.safe_load_all((BASE / file).read_text())
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


MANIFESTS = manifests()


def pods(name: str) -> Manifest:
    """The pod template of a Deployment."""
    return dict(MANIFESTS["Deployment", name]["spec"]["template"])


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def merge(base: Any, patch: Any) -> Any:
    """A strategic merge as far as the overlay uses it: lists are merged by `name`, or else replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: merge(base.get(key), value) for key, value in patch.items()}
    if isinstance(base, list) and patch and isinstance(patch[0], dict) and "name" in patch[0]:
        named = {item["name"]: item for item in base}
        return [merge(named.get(item["name"]), item) for item in patch]
    return patch


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", [key for key in MANIFESTS if key[0] not in OF_OPERATOR], ids="-".join)
def test_a_manifest_is_valid(key: tuple[str, str], version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[key], version, strict=True)


def test_the_schema_finds_a_misspelling() -> None:
    broken = MANIFESTS["Service", "landmoe"] | {"spec": {"ports": [{"port": "eighty"}], "selectr": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_every_file_is_part_of_the_kustomization() -> None:
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(KUSTOMIZATION["resources"])


@pytest.mark.parametrize("name", ["landmoe", "landmoe-redis"])
def test_selectors_find_their_pods(name: str) -> None:
    labels = pods(name)["metadata"]["labels"]
    assert selects(MANIFESTS["Deployment", name]["spec"]["selector"]["matchLabels"], labels)
    assert selects(MANIFESTS["Service", name]["spec"]["selector"], labels)
    assert selects(MANIFESTS["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"], labels)
    other = pods({"landmoe": "landmoe-redis", "landmoe-redis": "landmoe"}[name])["metadata"]["labels"]
    assert not selects(MANIFESTS["Service", name]["spec"]["selector"], other)


def test_what_watches_over_the_service_finds_it() -> None:
    labels = pods("landmoe")["metadata"]["labels"]
    assert selects(MANIFESTS["PodDisruptionBudget", "landmoe"]["spec"]["selector"]["matchLabels"], labels)
    target = MANIFESTS["HorizontalPodAutoscaler", "landmoe"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in MANIFESTS
    monitor = MANIFESTS["ServiceMonitor", "landmoe"]["spec"]
    service = MANIFESTS["Service", "landmoe"]
    assert selects(monitor["selector"]["matchLabels"], service["metadata"]["labels"])
    assert {e["port"] for e in monitor["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}
    # The alerts and the dashboard select by job, which the operator names after the Service.
    assert service["metadata"]["name"] == "landmoe"


@pytest.mark.parametrize("name", ["landmoe", "landmoe-redis"])
def test_pods_may_do_little(name: str) -> None:
    spec = pods(name)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert container["resources"]["limits"]["memory"]


def test_settings_are_settings_and_stopping_has_time() -> None:
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    settings = dict(literal.split("=", 1) for literal in generator["literals"])
    assert {name.removeprefix("LANDMOE_").lower() for name in settings} <= set(Settings.model_fields)
    spec = pods("landmoe")["spec"]
    (container,) = spec["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": generator["name"]}}]
    grace = float(settings["LANDMOE_SHUTDOWN_DELAY_S"]) + float(settings["LANDMOE_SHUTDOWN_GRACE_S"])
    assert spec["terminationGracePeriodSeconds"] > grace
    # With service links Kubernetes would set LANDMOE_PORT to an address.
    assert spec["enableServiceLinks"] is False
    redis = MANIFESTS["Service", "landmoe-redis"]
    assert (
        f"//{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}/" in settings["LANDMOE_REDIS_URL"]
    )


def test_probes_ask_what_the_service_answers() -> None:
    (container,) = pods("landmoe")["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pods("landmoe")["spec"]["volumes"]}
    assert volumes[mounts["/var/spool/landmoe"]].get("medium") != "Memory"


def test_images_are_those_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert pods("landmoe-redis")["spec"]["containers"][0]["image"] in compose["redis"]["image"]
    (image,) = KUSTOMIZATION["images"]
    assert image["newTag"] == "0.1.0-cpu"
    assert "landmoe}:${LANDMOE_VERSION:-0.1.0}-cpu" in compose["landmoe"]["image"]


def test_the_gpu_overlay_gives_a_valid_deployment() -> None:
    overlay = K8S / "gpu"
    kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    assert [(overlay / path).resolve() for path in kustomization["resources"]] == [BASE]
    (patch,) = (yaml.safe_load(_patch(overlay, entry)) for entry in kustomization["patches"])
    merged = merge(MANIFESTS[patch["kind"], patch["metadata"]["name"]], patch)
    kubernetes_validate.validate(merged, VERSIONS[-1], strict=True)
    (container,) = merged["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == "landmoe"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def _patch(overlay: Path, entry: dict[str, str]) -> str:
    return (overlay / entry["path"]).read_text()
