"""When bf16 can be had; what it gives is tested with the engine, tests/service/test_fast_precision.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import openvino_session
from model.openvino_session import has_bf16, unusable


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        pytest.param("flags\t\t: fpu sse2 avx512f avx512_bf16 erms\n", True, id="x86 with AVX-512 BF16"),
        pytest.param("flags\t\t: fpu amx_bf16 amx_tile\n", True, id="x86 with AMX"),
        pytest.param("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False, id="x86 that would emulate it"),
        pytest.param("Features\t: fp asimd i8mm bf16 dgh\n", True, id="Arm"),
        pytest.param("Features\t: fp asimd\n", False, id="older Arm"),
        pytest.param("model name\t: a CPU named bf16\nflags\t\t: fpu\n", False, id="a name is no flag"),
        pytest.param(
            "flags\t: fpu\n\nprocessor: 1\nflags\t: fpu avx512_bf16\n", True, id="several processors"
        ),
    ],
)
def test_instructions(tmp_path: Path, cpuinfo: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert has_bf16(file) is expected


def test_where_the_system_does_not_say_openvino_decides(tmp_path: Path) -> None:
    assert has_bf16(tmp_path / "missing")


def test_the_reason_comes_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session.importlib.util, "find_spec", lambda _: None)
    assert "install landmoe[openvino], or choose 'exact'" in str(unusable())
    monkeypatch.setattr(openvino_session.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(openvino_session, "has_bf16", lambda: False)
    assert unusable() == "this CPU has no instructions for bf16; choose 'exact'"
    monkeypatch.setattr(openvino_session, "has_bf16", lambda: True)
    assert unusable() is None
