"""The file that a command writes: its format, whether it can be written, and that it is whole."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from service.clients.errors import InputError
from service.clients.input_files import IMAGES

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


def write(content: bytes, output: Path, beside: Path | None = None) -> None:
    """Writes a file as a whole or not at all; `-` is standard output.

    Args:
        content: of the file.
        output: its name.
        beside: a folder on the same file system, where it lies until it is whole and which the next run
            clears away, if this one is killed meanwhile. If None, it lies beside the output.

    Raises:
        InputError: it cannot be written.
    """
    try:
        _write(content, output, beside)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error


def _write(content: bytes, output: Path, beside: Path | None) -> None:
    if str(output) == "-":
        text = content.startswith(b"{") and not content.endswith(b"\n")
        sys.stdout.buffer.write(content + b"\n" if text else content)
        sys.stdout.buffer.flush()
        return
    output = output.resolve()  # a link stays one
    if output.exists() and not output.is_file():  # a device or a pipe is not replaced
        output.write_bytes(content)
        return
    if beside is None or not os.access(beside, os.W_OK):
        beside = output.parent
    with tempfile.NamedTemporaryFile(dir=beside, prefix=f".{output.name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(output)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
