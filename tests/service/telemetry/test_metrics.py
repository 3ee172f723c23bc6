"""The metrics of several worker processes, read while workers begin and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
from service.telemetry import metrics
metrics.TILES.labels("ok").inc(3)
print(metrics.exposition().decode())
"""


def test_a_worker_that_has_just_begun_has_no_metrics_yet(tmp_path: Path) -> None:
    """In another process, since prometheus_client looks at the variable when it is imported."""
    (tmp_path / "counter_1.db").touch()  # as between two system calls of a worker's start
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'landmoe_tiles_total{outcome="ok"} 3.0' in done.stdout
