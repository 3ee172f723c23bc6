"""How many CPUs this process may use: the container's quota, not the host's cores."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC_CGROUP = Path("/proc/self/cgroup")


def quota(root: Path = CGROUP, proc_cgroup: Path = PROC_CGROUP) -> float | None:
    """CPUs allowed by the control group or any group above it (v2 `cpu.max`, v1 `cpu.cfs_quota_us`).

    Args:
        root: where the control groups are mounted.
        proc_cgroup: the kernel's list of this process's groups.

    Returns:
        The least of the limits, in CPUs; None without one.
    """
    limits = [limit for group in _groups(root, proc_cgroup) if (limit := _limit(group)) is not None]
    return min(limits, default=None)


def available() -> int:
    """Whole CPUs to plan threads for, at least one: quota and affinity, whichever is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    limit = quota()
    # A quota of 1.5 CPUs keeps two threads busy three quarters of the time; 1.2 would throttle both.
    return cores if limit is None else max(1, min(cores, math.floor(limit + 0.5)))


def _groups(root: Path, proc_cgroup: Path) -> list[Path]:
    """This process's group in both hierarchies, and every group above it."""
    try:
        lines = proc_cgroup.read_text().splitlines()
    except OSError:
        return []
    groups: list[Path] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # v1 mounts a controller, or several, in a folder of its own; v2 has none.
        for base in [root / controllers, root / "cpu"] if controllers else [root]:
            own = base / name.lstrip("/")
            groups += [own, *(up for up in own.parents if up == base or base in up.parents)]
            groups.append(base)  # inside a container the path is the host's and does not exist
    return groups


def _limit(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            allowed, _, period = (group / "cpu.max").read_text().partition(" ")
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return float(allowed) / float(period) if float(allowed) > 0 and float(period) > 0 else None
    except (OSError, ValueError):  # no such file; or "max", which is no limit
        return None
