"""What a figure was measured on: the processor, its memory, the versions of what computed."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
# Instructions that decide how fast matrices are multiplied.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
_PACKAGES = (
    "landmoe", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch",
    "fastapi", "uvicorn", "rasterio", "litserve",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """JSON-ready: `cpu`, `cpus` (that this process may use), `instructions`, `memory_gb`, `system`."""
    known = _cpuinfo()
    flags = known.get("flags", known.get("Features", "")).split()
    return {
        "cpu": known.get("model name", platform.processor() or platform.machine()),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that computed or were compared with, those that are installed."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries."""
    try:
        first = _CPUINFO.read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None
