"""The CPU quota of a container, as both versions of control groups state it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.batching import cpu


def groups(folder: Path, files: dict[str, str], own: str) -> tuple[Path, Path]:
    root = folder / "cgroup"
    root.mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    proc = folder / "self"
    proc.write_text(own)
    return root, proc


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        pytest.param({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5, id="v2, inside a container"),
        pytest.param({"cpu.max": "max 100000\n"}, "0::/\n", None, id="v2, no limit"),
        pytest.param({"a/b/cpu.max": "200000 100000"}, "0::/a/b\n", 2.0, id="v2, own group"),
        pytest.param(
            {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5, id="v2, group above"
        ),
        pytest.param(
            {"a/b/cpu.max": "100000 100000", "a/cpu.max": "400000 100000"},
            "0::/a/b\n",
            1.0,
            id="v2, the least",
        ),
        pytest.param(
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n",
            3.0,
            id="v1, the host's path",
        ),
        pytest.param(
            {"cpu/k/cpu.cfs_quota_us": "50000", "cpu/k/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/k\n",
            0.5,
            id="v1, own group",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            "4:cpu:/\n",
            None,
            id="v1, none",
        ),
        pytest.param({"cpu.max": "what"}, "0::/\n", None, id="nonsense"),
        pytest.param({}, "", None, id="no groups"),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], own: str, expected: float | None) -> None:
    assert cpu.quota(*groups(tmp_path, files, own)) == expected


@pytest.mark.parametrize(
    ("quota", "cores", "threads"), [(None, 8, 8), (2.0, 8, 2), (0.3, 8, 1), (1.5, 8, 2), (16, 4, 4)]
)
def test_available_is_the_lesser_of_quota_and_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int, threads: int
) -> None:
    monkeypatch.setattr(cpu, "quota", lambda: quota)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert cpu.available() == threads
