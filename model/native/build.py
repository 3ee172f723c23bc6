"""Compiles the kernels when the package is built: a hook of hatchling's (pyproject.toml).

    python -m model.native.build    # again, after a change of the sources

Where there is no compiler, or no Linux on x86-64, the package is built without them, and ONNX Runtime
computes. LANDMOE_REQUIRE_KERNELS=1 makes that an error. The compiler is $CC, else cc, gcc, clang, or the one
that the package ziglang brings (locks/compiler.txt).
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "landmoe_kernels.so"

_FLAGS = ["-O3", "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wall"]
_AVX512 = [
    *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "cd")),
    *("-mfma", "-mbmi", "-mbmi2", "-mpopcnt", "-mprefer-vector-width=512"),
]
_NUMBERS = {
    "fp32": _AVX512,
    "bf16": [*_AVX512, "-mavx512bf16"],
    "amx": [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}


class KernelsError(RuntimeError):
    """The kernels cannot be compiled here; says why."""


def compile_library(library: Path = LIBRARY) -> None:
    """Compiles all kernels into one shared library.

    Raises:
        KernelsError: there is no compiler, or it refuses.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise KernelsError(
            f"they are for Linux on x86-64, and this is {sys.platform} on {platform.machine()}"
        )
    compiler = _compiler()
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"{folder}/support.o"]
        commands = [[*compiler, *_FLAGS, "-c", str(FOLDER / "support.c"), "-o", objects[0]]]
        for numbers, flags in _NUMBERS.items():
            objects.append(f"{folder}/{numbers}.o")
            headers = [f'-DNUMBERS="numbers_{numbers}.h"', f'-DATTENTION="attention_{numbers}.h"']
            source = ["-c", str(FOLDER / "encoder.c"), "-o", objects[-1]]
            commands.append([*compiler, *_FLAGS, *flags, *headers, *source])
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(_call, commands))
        # Beside its place first: who has the old one open keeps it whole.
        made = library.with_suffix(".new")
        _call([*compiler, "-shared", *objects, "-o", str(made), "-lm", "-lpthread"])
        made.replace(library)


class KernelsBuildHook(BuildHookInterface[Any]):
    """Adds the library to a wheel; beside the sources, where an editable installation finds it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        del version
        if self.target_name != "wheel":
            return
        try:
            compile_library()
        except KernelsError as error:
            LIBRARY.unlink(missing_ok=True)
            if os.environ.get("LANDMOE_REQUIRE_KERNELS"):
                raise
            self.app.display_warning(f"built without kernels, ONNX Runtime will compute: {error}")
            return
        build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"


def _compiler() -> list[str]:
    if named := os.environ.get("CC"):
        return shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise KernelsError("no C compiler; install one (cc, gcc or clang), or the Python package ziglang")


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    except OSError as error:
        raise KernelsError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise KernelsError(f"{command[0]} failed: {(reasons or [f'exit {done.returncode}'])[0].strip()}")


if __name__ == "__main__":
    compile_library()
    print(LIBRARY)
