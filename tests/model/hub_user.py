"""Somebody's machine beside the stand-in for a hub, and a bundle as a repository there holds it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model import bundle_writer
from model.config import SIZES, Preprocessing
from model.probe import LinearProbe, encode
from tests.model.hub_server import Hub

PROGRAM = """
import sys, time
time.sleep = lambda seconds: None  # huggingface_hub waits 20 s in all before it gives up on a network
from model.bundle import BundleError, load
for source in sys.argv[1:]:
    try:
        found = load(source)
        print(found.name, found.version, found.path)
    except BundleError as error:
        print("error:", error)
print("torch" in sys.modules, file=sys.stderr)
"""


@dataclass
class User:
    """Somebody's machine: a cache of its own and an environment."""

    hub: Hub
    home: Path

    def run(
        self, *command: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE", "XDG_"))}
        settings = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "HOME": str(self.home)}
        return subprocess.run(
            [sys.executable, *command],
            env=clean | settings | variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def load(self, *sources: str, **variables: str) -> list[str]:
        """One line for each source: name, version and path, or the error."""
        done = self.run("-c", PROGRAM, *sources, **variables)
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("False\n"), "torch was imported"
        lines = done.stdout.splitlines()
        assert len(lines) == len(sources), done.stdout
        return lines


PROBE = encode(
    LinearProbe(
        task="multi-label",
        pooling="mean",
        labels=("water",),
        weights=np.zeros((1, SIZES["XXS"].embed_dim), np.float32),
        bias=np.zeros(1, np.float32),
    )
)


def as_repository(folder: Path, version: str = "1") -> dict[str, bytes]:
    """A new bundle as a repository holds it, with the hub's own files beside it."""
    bundle_writer.write(
        folder, name="test", version=version, trained=False, config=SIZES["XXS"],
        preprocessing=Preprocessing(), training={}, metrics={}, parity={}, card="card",
        files={"encoder.fp32.onnx": b"onnx" + version.encode(), "probes/a.safetensors": PROBE},
    )  # fmt: skip
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return found | {"README.md": b"# A page", ".gitattributes": b"", "training.log": b"x", "run.sh": b"x"}
