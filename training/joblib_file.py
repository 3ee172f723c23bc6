"""Read a joblib file as plain data, without running what is in it (see pickle_machine.py)."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, Protocol

from training.pickle_machine import run
from training.pickle_values import PickleError

# A probe of 1,000 classes on the 15,120 values of size S's tokens, in float64, takes 121 MB.
MAX_BYTES = 256 << 20
MAX_DECODER_MEMORY = 128 << 20  # an LZMA header may ask for 4 GB; the presets need at most 65 MB


class JoblibError(ValueError):
    """A file that is not a joblib file of plain data, and what is in the way."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def read(path: Path) -> Any:
    """What a joblib file holds: plain data, numpy arrays and `pickle_values.Instance`s.

    Files compressed with zlib, gzip, bz2, xz or lzma are recognised as joblib does it, by their first bytes.

    Raises:
        JoblibError: no such file, too large, damaged, or it holds a class or an instruction that is not on
            the list. Nothing in the file has been run.
    """
    if not path.is_file():  # a FIFO would block, a device never end
        raise JoblibError(f"{path}: no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise JoblibError(f"{path}: {size} bytes, more than the {MAX_BYTES} that a probe may have")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JoblibError(f"{path}: {error.strerror or error}") from error
    try:
        stream = io.BytesIO(_decompressed(data))
        value = run(stream)
        if stream.read(1):
            raise PickleError("more bytes follow after the end of the pickle")
    except PickleError as error:
        raise JoblibError(f"{path}: {error}; nothing in it was run") from error
    return value


def _decompressed(data: bytes) -> bytes:
    decompressor: _Decompressor
    if data.startswith((b"\x78", b"\x1f\x8b")):
        decompressor = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # zlib or gzip, by its header
    elif data.startswith(b"BZ"):
        decompressor = bz2.BZ2Decompressor()
    elif data.startswith((b"\xfd7zXZ", b"\x5d\x00")):
        decompressor = lzma.LZMADecompressor(memlimit=MAX_DECODER_MEMORY)
    elif data.startswith(b"\x04\x22\x4d\x18"):
        raise PickleError("it is compressed with lz4; expected zlib, gzip, bz2, xz, lzma or no compression")
    elif data.startswith(b"ZF"):
        raise PickleError("it is from a joblib before 0.10; expected a file from a later one")
    else:
        return data
    try:
        plain = decompressor.decompress(data, MAX_BYTES + 1)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise PickleError(f"its compression is damaged ({error})") from error
    if len(plain) > MAX_BYTES:
        raise PickleError(f"it has more than the {MAX_BYTES} bytes, decompressed, that a probe may have")
    if not decompressor.eof:
        raise PickleError("its compression is damaged (it ends too early)")
    return plain
