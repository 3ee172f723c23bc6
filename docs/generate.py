"""Writes what follows from something else in the project: `make docs`.

The settings are listed, from their class, between a line with "settings:begin" and one with "settings:end" of
each file that lists them; the Kubernetes alert rules are those of docker/prometheus/alerts.yml.
With --check nothing is written; the exit status says whether anything would be.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from service import settings_reference

ROOT = Path(__file__).resolve().parents[1]

# Set by docker/service.yml and by the image.
_GIVEN = {"LANDMOE_REDIS_URL", "LANDMOE_SPOOL_DIR"}


def blocks() -> dict[Path, str]:
    """What belongs between the two lines of each file."""
    variables = [s.variable for s in settings_reference.settings() if s.variable not in _GIVEN]
    return {
        ROOT / "docs/operations.md": "\n" + settings_reference.markdown() + "\n",
        ROOT / ".env.example": settings_reference.dotenv(without=_GIVEN),
        ROOT / "docker/service.yml": "".join(f"      - {variable}\n" for variable in variables),
    }


def with_block(text: str, block: str) -> str:
    """A file's text with its block replaced.

    Raises:
        ValueError: the file does not have the two lines, once each and in order.
    """
    lines = text.splitlines(keepends=True)
    begins = [i for i, line in enumerate(lines) if "settings:begin" in line]
    ends = [i for i, line in enumerate(lines) if "settings:end" in line]
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise ValueError(
            f"expected one line with settings:begin and one with settings:end, got {begins}, {ends}"
        )
    return "".join([*lines[: begins[0] + 1], block, *lines[ends[0] :]])


def kubernetes_rules() -> str:
    """The service's alert rules as the Prometheus operator takes them; there is no gateway in Kubernetes."""
    groups = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "landmoe",
            "labels": {"app.kubernetes.io/name": "landmoe", "app.kubernetes.io/component": "service"},
        },
        "spec": {"groups": [group for group in groups if group["name"] != "gateway"]},
    }
    return "# Made from docker/prometheus/alerts.yml by `make docs`.\n" + yaml.safe_dump(
        rule, sort_keys=False
    )


def main() -> None:
    """Writes, or with --check compares, every file."""
    check = sys.argv[1:] == ["--check"]
    wanted = {path: with_block(path.read_text(), block) for path, block in blocks().items()}
    wanted[ROOT / "docker/k8s/base/prometheus-rule.yaml"] = kubernetes_rules()
    stale = []
    for path, after in wanted.items():
        before = path.read_text() if path.exists() else ""
        if after != before:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(after)
    if stale:
        print(f"{', '.join(stale)}: {'not up to date; run make docs' if check else 'written'}")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
