"""The kernels compile where there is a compiler, and a package is built without them where there is none."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.native import build
from model.native import session as native
from model.native.build import KernelsError, compile_library

ROOT = Path(__file__).parents[3]
needs_compiler = pytest.mark.skipif(
    platform.machine() != "x86_64" or not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="no C compiler, or no x86-64",
)


@needs_compiler
def test_they_compile_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_FLAGS", [*build._FLAGS, "-Wextra", "-Werror"])
    library = tmp_path / "kernels.so"
    compile_library(library)
    loaded = ctypes.CDLL(str(library))
    assert loaded.landmoe_supports_fp32() in (0, 1)
    for numbers in ("fp32", "bf16", "amx"):
        assert all(hasattr(loaded, f"landmoe_{what}_{numbers}") for what in ("open", "run", "close"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels.so"]


def test_what_the_compiler_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "support.c").write_text("not C\n")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(KernelsError, match="false failed: exit 1"):
        compile_library(tmp_path / "kernels.so")
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(KernelsError, match="/nowhere/cc cannot be run"):
        compile_library(tmp_path / "kernels.so")
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(KernelsError, match="no C compiler; install one"):
        compile_library(tmp_path / "kernels.so")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(KernelsError, match="this is linux on aarch64"):
        compile_library(tmp_path / "kernels.so")


@pytest.mark.slow
@pytest.mark.parametrize("required", [False, True])
def test_a_wheel_without_a_compiler(tmp_path: Path, required: bool) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in ("model", "service", "training"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source,
        env={"PATH": "/nowhere", "LANDMOE_REQUIRE_KERNELS": "1" if required else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if required:
        assert done.returncode
        assert "no C compiler" in said
    else:
        assert not done.returncode, said
        assert "built without kernels, ONNX Runtime will compute: no C compiler" in said
        assert [path.name for path in tmp_path.glob("*.whl")] == ["landmoe-0.1.0-py3-none-any.whl"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(native.unusable("fp32") is not None, reason=f"{native.unusable('fp32')}")
def test_no_kernel_leaves_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under AddressSanitizer and UndefinedBehaviorSanitizer, in a process that has them from its start."""
    sanitizers = [_library_of("libasan.so"), _library_of("libubsan.so")]
    flags = [flag for flag in build._FLAGS if flag != "-O3"]
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    monkeypatch.setattr(build, "_FLAGS", [*flags, *checks])
    # The linker wants to know of them too, and is called without these flags.
    monkeypatch.setenv("CC", "gcc -fsanitize=address,undefined")
    library = tmp_path / "kernels.so"
    compile_library(library)
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.native.every_kernel", str(library)],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": " ".join(sanitizers), "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    assert "runtime error" not in done.stderr
    assert "kernels ran" in done.stdout


def _library_of(name: str) -> str:
    if not shutil.which("gcc"):
        pytest.skip("the sanitizers are those of gcc")
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if path == name:  # as it is printed where there is none
        pytest.skip(f"gcc has no {name}")
    return path
