"""The CPU quota of a container, as both versions of control groups state it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        pytest.param({"cpu.max": "250000 100000"}, "0::/kubepods/pod1/abc\n", 2.5, id="v2, the host's path"),
        pytest.param({"cpu.max": "75000 50000"}, "0::/../other\n", 1.5, id="v2, outside of its namespace"),
        pytest.param(
            {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}
            | {"cpu/a/cpu.cfs_quota_us": "120000", "cpu/a/cpu.cfs_period_us": "50000"},
            "4:cpu,cpuacct:/a/b\n",
            2.4,
            id="v1, group above",
        ),
        pytest.param(
            {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
            | {"unified/a/cgroup.procs": "1"},
            "4:cpu,cpuacct:/\n1:name=systemd:/a\n0::/a\n",
            1.5,
            id="v1 beside v2 without the controller",
        ),
        pytest.param(
            {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"},
            "4:cpuacct,cpu:/a\n",
            1.0,
            id="v1, named the other way round",
        ),
        pytest.param(
            {"cpuset/a/cpu.cfs_quota_us": "100000", "cpuset/a/cpu.cfs_period_us": "100000"},
            "4:cpuset:/a\n",
            None,
            id="v1, another controller whose name begins alike",
        ),
        pytest.param({"cpu.max": "0 100000"}, "0::/\n", None, id="no time at all is no plan"),
        pytest.param({"cpu.max": "100000 0"}, "0::/\n", None, id="no period"),
        pytest.param({"cpu.max": "100000"}, "0::/\n", None, id="half a line"),
        pytest.param({"cpu.max": "what"}, "0::/\n", None, id="nonsense"),
        pytest.param({}, "", None, id="no groups"),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], own: str, expected: float | None) -> None:
    assert cpu.quota(*groups(tmp_path, files, own)) == expected


LIMITS = st.lists(
    st.none() | st.tuples(st.integers(1_000, 10**7), st.integers(1_000, 10**6)), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, version=st.sampled_from([1, 2]))
def test_the_least_of_nested_groups_counts(limits: list[tuple[int, int] | None], version: int) -> None:
    """`limits` from the outermost group to the process's own; None is no limit."""
    files: dict[str, str] = {}
    for depth, limit in enumerate(limits):
        folder = "/".join(["" if version == 2 else "cpu", *(f"g{i}" for i in range(depth))]).strip("/")
        allowed, period = limit or ("max" if version == 2 else -1, 100_000)
        if version == 2:
            files[f"{folder}/cpu.max".lstrip("/")] = f"{allowed} {period}\n"
        else:
            files[f"{folder}/cpu.cfs_quota_us"] = f"{allowed}\n"
            files[f"{folder}/cpu.cfs_period_us"] = f"{period}\n"
    own = "/" + "/".join(f"g{i}" for i in range(len(limits) - 1))
    known = [allowed / period for allowed, period in filter(None, limits)]
    with TemporaryDirectory() as folder:
        found = cpu.quota(*groups(Path(folder), files, f"{'0:' if version == 2 else '4:cpu'}:{own}\n"))
    assert found == min(known, default=None)


@pytest.mark.parametrize(
    ("quota", "cores", "threads"), [(None, 8, 8), (2.0, 8, 2), (0.3, 8, 1), (1.5, 8, 2), (16, 4, 4)]
)
def test_available_is_the_lesser_of_quota_and_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int, threads: int
) -> None:
    monkeypatch.setattr(cpu, "quota", lambda: quota)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert cpu.available() == threads
