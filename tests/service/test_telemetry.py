"""Nothing phones home: ONNX Runtime's telemetry, on by default, is off wherever we import it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["service.encoder_engine", "service.cli", "model.parity"])
def test_onnxruntime_is_told_not_to_report_before_it_is_imported(module: str) -> None:
    """The environment is looked at in the moment of the import, when the library reads it."""
    code = f"""
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("at import:", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import {module}
print("after:", os.environ.get("ORT_DISABLE_TELEMETRY"))
"""
    # CI, too, turns it off.
    environment = {k: v for k, v in os.environ.items() if k not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.split("\n")
    assert "after: 1" in lines
    assert "at import: None" not in lines


def test_who_wants_to_report_may() -> None:
    code = "import os, service; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
