"""What is C compiles where there is a compiler, and a package is built without it where there is none."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder

import hatch_build
from hatch_build import KERNELS, PIXELS, CompileError, Library, compile_library
from model.native import session as native

ROOT = Path(__file__).parents[1]
needs_compiler = pytest.mark.skipif(
    platform.machine() != "x86_64" or not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="no C compiler, or no x86-64",
)


@needs_compiler
@pytest.mark.parametrize("library", [KERNELS, PIXELS], ids=["kernels", "pixels"])
def test_they_compile_without_a_warning(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hatch_build, "_FLAGS", (*hatch_build._FLAGS, "-Wextra", "-Werror"))
    compile_library(library, tmp_path / "made.so")
    loaded = ctypes.CDLL(str(tmp_path / "made.so"))
    if library is PIXELS:
        assert loaded.landmoe_pixels
    else:
        for kernels in ("fp32", "avx2", "bf16", "amx"):
            assert getattr(loaded, f"landmoe_supports_{kernels}")() in (0, 1)
            assert all(hasattr(loaded, f"landmoe_{what}_{kernels}") for what in ("open", "run", "close"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.so"]


@pytest.mark.parametrize("compiler", ["python -m ziglang cc", "/opt/zig/zig cc", "gcc"])
def test_nothing_is_made_for_the_cpu_at_hand_alone(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As zig does unless it is told: a library of an image would end the process on an older machine."""
    calls: list[list[str]] = []
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(hatch_build, "_call", calls.append)
    with pytest.raises(FileNotFoundError):  # nothing was linked
        compile_library(PIXELS, tmp_path / "made.so")
    assert calls
    assert all(("-mcpu=baseline" in call) == ("zig" in compiler) for call in calls)
    assert not any(word in call for call in calls for word in ("-march=native", "-mcpu=native"))


def test_what_the_compiler_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = KERNELS._replace(path=tmp_path / "kernels.so", objects=(("support.c", ()),))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "support.c").write_text("not C\n")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(CompileError, match="false failed: exit 1"):
        compile_library(library)
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(CompileError, match="/nowhere/cc cannot be run"):
        compile_library(library)
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CompileError, match="no C compiler; install one"):
        compile_library(library)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(CompileError, match="this is linux on aarch64"):
        compile_library(library)


@pytest.mark.slow
@pytest.mark.parametrize("required", [False, True])
def test_a_wheel_without_a_compiler(tmp_path: Path, required: bool) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in ("model", "service", "training"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
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
        assert "built without landmoe_kernels: no C compiler" in said
        assert "built without landmoe_pixels: no C compiler" in said
        assert [path.name for path in tmp_path.glob("*.whl")] == ["landmoe-0.1.0-py3-none-any.whl"]


def sanitized(library: Library, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a module says that runs a library under AddressSanitizer and UndefinedBehaviorSanitizer.

    In a process that has them from its start.
    """
    sanitizers = [_library_of("libasan.so"), _library_of("libubsan.so")]
    flags = [flag for flag in hatch_build._FLAGS if flag != "-O3"]
    checks = ["-O0", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    monkeypatch.setattr(hatch_build, "_FLAGS", (*flags, *checks))
    # The linker wants to know of them too, and is called without these flags.
    monkeypatch.setenv("CC", "gcc -fsanitize=address,undefined")
    compile_library(library, tmp_path / "made.so")
    done = subprocess.run(
        [sys.executable, "-m", module, str(tmp_path / "made.so")],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": " ".join(sanitizers), "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    assert "runtime error" not in done.stderr
    return done.stdout


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(native.unusable("fp32") is not None, reason=f"{native.unusable('fp32')}")
def test_no_kernel_leaves_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = sanitized(KERNELS, "tests.model.native.every_kernel", tmp_path, monkeypatch)
    assert "kernels ran" in said


@needs_compiler
@pytest.mark.slow
def test_no_damaged_stream_makes_the_reader_of_pixels_leave_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = sanitized(PIXELS, "tests.service.rasters.damaged_streams", tmp_path, monkeypatch)
    assert "streams were read" in said


def _library_of(name: str) -> str:
    if not shutil.which("gcc"):
        pytest.skip("the sanitizers are those of gcc")
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if path == name:  # as it is printed where there is none
        pytest.skip(f"gcc has no {name}")
    return path


def test_a_source_archive_serves_and_tests_as_the_repository_does(tmp_path: Path) -> None:
    """Its README names `make serve`, `make test` and `docker compose up`."""
    [archive] = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    named = re.findall(r"\blocks/[\w.-]+\w", (ROOT / "Makefile").read_text())
    assert {*named, "docker-compose.yml", ".env.example", ".dockerignore"} <= inside
