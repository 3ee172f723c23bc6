"""The Compose files, read as text: what has to hold for every service, and what .env.example says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.integration.compose import ROOT

FILES = ("docker-compose.yml", "docker/service.yml", "docker/compose.gpu.yml", "docker/compose.scale.yml")
TEXTS = {file: (ROOT / file).read_text() for file in FILES}
PARSED: dict[str, dict[str, Any]] = {file: yaml.safe_load(text) for file, text in TEXTS.items()}
VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")

# Compose 1.29 does not load files with these; docker compose v2 would.
TOO_NEW = {"name", "include", "gpus", "develop", "annotations", "post_start", "start_interval"}


def services() -> dict[str, dict[str, Any]]:
    """Every service that can be started, with what it extends and all that the files say of it."""
    common = PARSED["docker/service.yml"]["services"]["landmoe"]
    found = dict(PARSED["docker-compose.yml"]["services"])
    scale = PARSED["docker/compose.scale.yml"]["services"]
    found |= {name: scale[name] for name in ("replica", "gateway")}
    return {name: extended(common, own) if "extends" in own else own for name, own in found.items()}


def extended(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What Compose makes of a service that extends another."""
    together = {
        "volumes": common["volumes"] + own["volumes"],
        "deploy": common["deploy"] | own.get("deploy", {}),
    }
    return common | own | together


SERVICES = services()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}
    assert service["logging"]["options"]["max-size"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_published_ports_are_on_the_loopback_interface_unless_said_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        _, default = VARIABLE.match(port).groups()  # type: ignore[union-attr]
        assert default.startswith("127.0.0.1:")
    if name in {"redis", "replica"}:
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", ["redis", "prometheus", "grafana"])
def test_foreign_images_have_a_version_and_a_health_check(name: str) -> None:
    _, image = VARIABLE.match(SERVICES[name]["image"]).groups()  # type: ignore[union-attr]
    assert re.search(r":v?\d+\.\d+", image)
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", ["landmoe", "replica"])
def test_the_spool_is_a_volume_on_disk(name: str) -> None:
    assert "/var/spool/landmoe" in SERVICES[name]["volumes"]
    assert not any(mount.startswith("/var") for mount in SERVICES[name]["tmpfs"])


def test_redis_is_on_a_network_of_its_own_without_a_way_out() -> None:
    assert PARSED["docker-compose.yml"]["networks"]["cache"] == {"internal": True}
    on_it = {name for name, service in SERVICES.items() if "cache" in service.get("networks", [])}
    assert on_it == {"landmoe", "replica", "redis"}
    assert SERVICES["redis"]["networks"] == ["cache"]


def test_nothing_is_too_new_for_compose_1_29() -> None:
    def keys(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node).union(*(keys(value) for value in node.values()))
        return set().union(*(keys(value) for value in node)) if isinstance(node, list) else set()

    for file, parsed in PARSED.items():
        below = set().union(*(keys(service) for service in parsed["services"].values()))
        assert not (set(parsed) | below) & TOO_NEW, file
    for file in ("docker/Dockerfile", "docker/gateway/Dockerfile"):
        assert not re.search(r"^#\s*syntax=", (ROOT / file).read_text(), re.MULTILINE), file


def test_the_example_env_lists_every_variable_with_its_default() -> None:
    listed = dict(re.findall(r"^# (\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = {match for text in TEXTS.values() for match in VARIABLE.findall(text)}
    # With a GPU more memory is wanted, and replicas take leave of the gateway.
    used -= {("LANDMOE_MEMORY", "8g"), ("LANDMOE_SHUTDOWN_DELAY_S", "5")}
    assert len({name for name, _ in used}) == len(used), "one variable, several defaults"
    assert {name: listed.get(name) for name, _ in used} == dict(used)


def test_every_setting_is_passed_on() -> None:
    passed = {entry.split("=")[0] for entry in SERVICES["landmoe"]["environment"]}
    listed = re.findall(
        r"^# (LANDMOE_\w+)=", (ROOT / ".env.example").read_text().split("---- the service")[1], re.M
    )
    assert set(listed) <= passed


def test_the_service_is_built_for_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]
    for text in (*TEXTS.values(), (ROOT / "docker/Dockerfile").read_text()):
        for given in re.findall(r"LANDMOE_VERSION:-([\d.]+)|ARG VERSION=([\d.]+)", text):
            assert version in given


def test_nothing_of_the_checkout_but_the_listed_is_sent_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*"
