"""Compiles what is C when the package is built: a hook of hatchling's (pyproject.toml).

    python hatch_build.py    # again, after a change of the sources

Two libraries: the encoder (model/native, on x86-64) and pixels of plain TIFFs (service/rasters/native). Where
there is no compiler, or no Linux, the package is built without them, and ONNX Runtime, NumPy and GDAL do what
they would. LANDMOE_REQUIRE_KERNELS=1 makes that an error. The compiler is $CC, else cc, gcc, clang, or what
the package ziglang brings (locks/compiler.txt).
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
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent

_FLAGS = ("-O3", "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wall")
_AVX2 = ("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt")
_AVX512 = (
    *_AVX2,
    *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "cd")),
    "-mprefer-vector-width=512",
)


class Library(NamedTuple):  # hatchling loads this file in a way that dataclasses do not stand
    """A shared library, the machines that it is for, and how each of its objects is made of a source.

    `objects` are (source, flags), with sources in the library's folder.
    """

    path: Path
    machines: tuple[str, ...]
    objects: tuple[tuple[str, tuple[str, ...]], ...]


def _encoder(kernels: str, vectors: str, numbers: str, *flags: str) -> tuple[str, tuple[str, ...]]:
    headers = {
        "VECTORS": f"vectors_{vectors}",
        "NUMBERS": f"numbers_{numbers}",
        "ATTENTION": f"attention_{numbers}",
    }
    names = (f'-D{name}="{header}.h"' for name, header in headers.items())
    return "encoder.c", (*flags, f"-DKERNELS={kernels}", *names)


KERNELS = Library(
    ROOT / "model" / "native" / "landmoe_kernels.so",
    ("x86_64",),
    (
        ("support.c", ()),
        _encoder("fp32", "avx512", "fp32", *_AVX512),
        _encoder("avx2", "avx2", "fp32", *_AVX2),
        _encoder("bf16", "avx512", "bf16", *_AVX512, "-mavx512bf16"),
        _encoder("amx", "avx512", "amx", *_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
    ),
)
PIXELS = Library(
    ROOT / "service" / "rasters" / "native" / "landmoe_pixels.so", ("x86_64", "aarch64"), (("pixels.c", ()),)
)


class CompileError(RuntimeError):
    """A library cannot be compiled here; says why."""


def compile_library(library: Library, path: Path | None = None) -> None:
    """Compiles a library into its place, or another.

    Raises:
        CompileError: it is not for this machine, there is no compiler, or it refuses.
    """
    if sys.platform != "linux" or platform.machine() not in library.machines:
        raise CompileError(
            f"it is for Linux on {' or '.join(library.machines)}, and this is {sys.platform} on "
            f"{platform.machine()}"
        )
    compiler = _compiler()
    path = path or library.path
    with tempfile.TemporaryDirectory() as folder:
        objects, commands = [], []
        for number, (source, flags) in enumerate(library.objects):
            objects.append(f"{folder}/{number}.o")
            made_of = ["-c", str(library.path.parent / source), "-o", objects[-1]]
            commands.append([*compiler, *_FLAGS, *flags, *made_of])
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(_call, commands))
        # Beside its place first: who has the old one open keeps it whole.
        made = path.with_suffix(".new")
        _call([*compiler, "-shared", *objects, "-o", str(made), "-lm", "-lpthread"])
        made.replace(path)


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the libraries to a wheel; beside the sources, where an editable installation finds them."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        del version
        if self.target_name != "wheel":
            return
        for library in (KERNELS, PIXELS):
            try:
                compile_library(library)
            except CompileError as error:
                library.path.unlink(missing_ok=True)
                if os.environ.get("LANDMOE_REQUIRE_KERNELS"):
                    raise
                self.app.display_warning(f"built without {library.path.stem}: {error}")
                continue
            build_data["artifacts"].append(str(library.path.relative_to(self.root)))
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{platform.machine()}"


def _compiler() -> list[str]:
    command = _found_compiler()
    if any(Path(part).name in ("zig", "ziglang") for part in command):
        # zig compiles for the CPU at hand; what is made here runs on others, and asks for what it may use.
        command.append("-mcpu=baseline")
    return command


def _found_compiler() -> list[str]:
    if named := os.environ.get("CC"):
        return shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise CompileError("no C compiler; install one (cc, gcc or clang), or the Python package ziglang")


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CompileError(f"{command[0]} failed: {(reasons or [f'exit {done.returncode}'])[0].strip()}")


if __name__ == "__main__":
    for each in (KERNELS, PIXELS):
        compile_library(each)
        print(each.path)
