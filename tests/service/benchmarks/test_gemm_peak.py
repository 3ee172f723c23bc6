"""The machine's matrix rate, measured in a process of its own."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from service.benchmarks import gemm_peak


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm_peak, "_SECONDS", 0.001)
    monkeypatch.setattr(gemm_peak, "_ROUNDS", 1)


def test_rates_of_every_kind_of_numbers(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    gemm_peak._main(1)
    rates = gemm_peak.json.loads(capsys.readouterr().out)
    assert rates["fp32"] > 0
    assert set(rates) <= {"fp32", "bf16"}


def test_every_thread_multiplies_matrices_of_its_own() -> None:
    _, operations, calls = gemm_peak._numpy_products(4, 5, 6, threads=3)
    assert operations == 2 * 4 * 5 * 6
    results = [call() for call in calls]
    assert len({id(result) for result in results}) == 3
    assert all(result.shape == (4, 6) for result in results)


def test_the_process_has_a_single_threaded_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 0, '{"fp32": 12.5}', "")

    monkeypatch.setattr(gemm_peak.subprocess, "run", run)
    assert gemm_peak.measure(2) == {"fp32": 12.5}
    assert seen["command"][-1] == "2"
    assert seen["env"]["OPENBLAS_NUM_THREADS"] == seen["env"]["OMP_NUM_THREADS"] == "1"


def test_a_failure_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, "", "Traceback ...\nImportError: no numpy\n")
    monkeypatch.setattr(gemm_peak.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match="could not be measured: ImportError: no numpy"):
        gemm_peak.measure(1)
