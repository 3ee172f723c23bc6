"""The file that a command writes: its format, whether it can be written, and that it is whole."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from service.clients.errors import InputError
from service.clients.input_files import IMAGES
from service.clients.links import is_link

SUFFIXES = {
    ".parquet": "parquet",
    ".geoparquet": "parquet",
    ".npy": "npy",
    ".geojson": "geojson",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".tif": "geotiff-classes",
    ".tiff": "geotiff-classes",
}
_IN_MEMORY = 64_000_000  # bytes, of what is passed on when it is whole
_PIECE = 1_000_000
_BINARY = ("npy", "parquet", "geotiff-classes", "geotiff-probabilities")


def output_format(output: Path, given: str | None, route: str) -> str:
    """The service's format for a file: as given, else by its suffix; JSON on standard output.

    Raises:
        InputError: the suffix says none that the route has.
    """
    if given is not None:
        return given
    if str(output) == "-":
        return "json"
    known = SUFFIXES if route == "/classify" else {s: f for s, f in SUFFIXES.items() if s not in IMAGES}
    found = known.get(output.suffix.lower())
    if found is None:
        raise InputError(
            f"{output}: the suffix says no format of {route}; expected one of {', '.join(known)}, or --format"
        )
    return found


def check(output: Path, wanted: str) -> None:
    """Whether a file can be written there; asked before the work, which may take hours.

    Raises:
        InputError: it cannot.
    """
    if str(output) == "-":
        if wanted in _BINARY and sys.stdout.isatty():
            raise InputError(f"{wanted} is nothing to read on a terminal; expected -o FILE")
        return
    try:
        folder = output.resolve().parent  # a link's file is what is replaced
    except RuntimeError as error:  # Python before 3.13
        raise InputError(f"{output} is a link that leads back to itself; expected a file name") from error
    if output.is_dir():
        raise InputError(f"{output} is a folder; expected the name of a file")
    if not folder.is_dir():
        raise InputError(f"{output}: there is no folder {folder}; expected a file name in one that is there")
    if not os.access(output if output.exists() and not output.is_file() else folder, os.W_OK):
        raise InputError(f"{output} cannot be written: no permission to write into {folder}")


def check_apart(output: Path, read: Iterable[str | Path | None]) -> None:
    """Whether the output would take the place of a file that is read.

    Raises:
        InputError: it would.
    """
    if output.is_file() and any(
        path is not None and not is_link(path) and Path(path).exists() and output.samefile(path)
        for path in read
    ):
        raise InputError(f"{output} is a file to read; expected another name for what is written")


@contextmanager
def written(output: Path, beside: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of the output as a whole, or not at all: not after an exception.

    Args:
        output: its name; `-` is standard output.
        beside: a folder on the same file system, where it lies until it is whole and which the next run
            clears away, if this one is killed meanwhile. If None, it lies beside the output.

    Raises:
        InputError: it cannot be written.
    """
    try:
        if str(output) == "-" or (
            output.exists() and not output.is_file()
        ):  # a device or pipe is not replaced
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as passing:
                yield cast(IO[bytes], passing)
                passing.seek(0)
                _pass_on(cast(IO[bytes], passing), output)
        else:
            output = output.resolve()  # a link stays one
            if beside is None or not os.access(beside, os.W_OK):
                beside = output.parent
            with tempfile.NamedTemporaryFile(dir=beside, prefix=f".{output.name}.", delete=False) as file:
                try:
                    yield cast(IO[bytes], file)
                    file.close()
                    Path(file.name).chmod(0o666 & ~_umask())
                    Path(file.name).replace(output)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error


def _pass_on(file: IO[bytes], output: Path) -> None:
    if str(output) != "-":
        with output.open("wb") as device:
            shutil.copyfileobj(file, device)
        return
    text, last = False, b""
    while piece := file.read(_PIECE):
        text, last = text or (not last and piece.startswith(b"{")), piece[-1:]
        sys.stdout.buffer.write(piece)
    if text and last != b"\n":
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
