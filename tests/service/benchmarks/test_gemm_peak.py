"""The machine's matrix rate, measured in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.benchmarks import gemm_peak
from service.benchmarks.gemm_peak import MatrixRate, MatrixRateError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm_peak, "TURN_S", 0.001)
    monkeypatch.setattr(gemm_peak, "_ROUNDS", 1)


def test_rates_of_every_kind_of_numbers_and_single_turns(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("all\nfp32\nfp128\n"))
    gemm_peak._main(1)
    rates, turn, unknown = map(json.loads, capsys.readouterr().out.splitlines())
    assert rates["fp32"] > 0
    assert set(rates) <= {"fp32", "bf16", "torch"}
    assert turn > 0
    assert unknown > 0


def test_a_turn_keeps_to_the_shape_that_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"slow": 1.0, "fast": 3.0, "other": 2.0}
    products: list[Any] = [("fp32", 0.0, ["slow"]), ("fp32", 0.0, ["fast"]), ("bf16", 0.0, ["other"])]
    monkeypatch.setattr(gemm_peak, "_turn", lambda _, each: rates[each[2][0]])
    with ThreadPoolExecutor(1) as pool:
        best = gemm_peak._best(pool, products)
    assert best == {"fp32": (3.0, products[1]), "bf16": (2.0, products[2])}


def _started_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    start = subprocess.Popen

    def popen(command: list[str], *, env: dict[str, str], **how: Any) -> Any:
        seen.update(command=command, env=env)
        return start([sys.executable, "-c", program], env=env, **how)

    monkeypatch.setattr(gemm_peak.subprocess, "Popen", popen)
    return seen


def test_the_process_has_a_single_threaded_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _started_instead(monkeypatch, "import sys\nfor line in sys.stdin: print(12.5, flush=True)")
    with MatrixRate(2) as matrix:
        assert matrix.turn("fp32") == 12.5
    assert seen["command"][-1] == "2"
    assert seen["env"]["OPENBLAS_NUM_THREADS"] == seen["env"]["OMP_NUM_THREADS"] == "1"


def test_a_failure_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _started_instead(monkeypatch, "import sys; sys.exit('Traceback ...\\nImportError: no numpy')")
    with (
        MatrixRate(1) as matrix,
        pytest.raises(MatrixRateError, match="could not be measured: ImportError: no numpy"),
    ):
        matrix.all()


def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm_peak, "_TIMEOUT_S", 0.2)
    _started_instead(monkeypatch, "import time; time.sleep(600)")
    with MatrixRate(1) as matrix, pytest.raises(MatrixRateError, match="could not be measured: exit -9"):
        matrix.turn("fp32")
