"""A small bundle, written with what is good but for the changes asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model import bundle_writer
from model.bundle import Bundle
from model.config import SIZES, Preprocessing

ENCODER = b"not a network, but the bundle format does not care"


def write(path: Path, **changes: Any) -> Bundle:
    values: dict[str, Any] = {
        "name": "landmoe-test",
        "version": "0.1.0",
        "trained": False,
        "config": SIZES["XXS"],
        "preprocessing": Preprocessing(),
        "training": {"data": "none"},
        "metrics": {},
        "parity": {"fp32": {"max_relative_error": 1e-6}},
        "card": "# Test\n\nÜber nothing.\n",
        "files": {"encoder.fp32.onnx": ENCODER, "probes/bigearthnet-19.safetensors": b"probe"},
    }
    return bundle_writer.write(path, **{**values, **changes})
