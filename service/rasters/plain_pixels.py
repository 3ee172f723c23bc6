"""The pixels of a plain TIFF: blocks unpacked, predictors undone, bands first.

Done in C (native/) for all but floating-point differences, where the package was built with it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from service.rasters import native_pixels
from service.rasters.plain_tiff import DEFLATE, FLOATING, HORIZONTAL, LZW, Content, PlainTiff


def read(data: Content, tiff: PlainTiff) -> npt.NDArray[Any] | None:
    """Pixels (bands, height, width) in this machine's byte order; None where a block is not as it should be.

    Args:
        data: the whole file.
        tiff: what it says of itself; its sizes are within limits.
    """
    if native_pixels.usable(tiff):
        return native_pixels.read(data, tiff)
    packed = _unpacked(memoryview(data), tiff)
    if packed is None:
        return None
    planes, samples = (tiff.bands, 1) if tiff.apart else (1, tiff.bands)
    if tiff.tiled:
        rows, cols = tiff.block_height, tiff.block_width
        down, across = -(-tiff.height // rows), -(-tiff.width // cols)
    else:
        rows, cols, down, across = tiff.height, tiff.width, 1, 1
    shape = (planes, down, across, rows, cols, samples)
    if tiff.predictor == FLOATING:
        values = _undo_floating(packed, shape, tiff.dtype)
    else:
        values = packed.view(tiff.order + tiff.dtype).reshape(shape)
    native = np.dtype(tiff.dtype)
    bands = np.array(values.transpose(0, 5, 1, 3, 2, 4), dtype=native, order="C")
    if tiff.predictor == HORIZONTAL:  # differences to the pixel on the left, in a row of a block
        bands = _row_sums(bands.view(f"u{native.itemsize}")).view(native)
    padded = bands.reshape(tiff.bands, down * rows, across * cols)
    return np.ascontiguousarray(padded[:, : tiff.height, : tiff.width])


def _unpacked(data: memoryview, tiff: PlainTiff) -> npt.NDArray[np.uint8] | None:
    """The bytes of all blocks, one after the other; None if one is cut, too long or damaged."""
    if tiff.compression == LZW:  # in Python it would take longer than to ask GDAL
        return None
    blocks = list(zip(tiff.block_offsets, tiff.block_sizes, _block_bytes(tiff), strict=True))
    if any(start < 8 or start + size > len(data) for start, size, _ in blocks):
        return None
    if tiff.compression == DEFLATE:
        parts = []
        for start, size, expected in blocks:
            part = _inflated(data[start : start + size], expected)
            if part is None:
                return None
            parts.append(part)
        return np.frombuffer(b"".join(parts), np.uint8)
    if any(size != expected for _, size, expected in blocks):
        return None
    first = blocks[0][0]
    end = first
    for start, size, _ in blocks:
        if start != end:
            return np.frombuffer(b"".join(data[start : start + size] for start, size, _ in blocks), np.uint8)
        end += size
    return np.frombuffer(data[first:end], np.uint8)  # in one piece, as most writers leave them


def _block_bytes(tiff: PlainTiff) -> list[int]:
    """How many bytes each block unpacks to."""
    pixel = (1 if tiff.apart else tiff.bands) * int(tiff.dtype[1])
    size = tiff.block_height * tiff.block_width * pixel
    if tiff.tiled:
        return [size] * len(tiff.block_offsets)
    planes = tiff.bands if tiff.apart else 1
    strips = len(tiff.block_offsets) // planes
    last = (tiff.height - (strips - 1) * tiff.block_height) * tiff.width * pixel
    return ([size] * (strips - 1) + [last]) * planes


def _inflated(packed: memoryview, expected: int) -> bytes | None:
    """The one complete stream that these bytes are, if it has the expected length."""
    stream = zlib.decompressobj()
    try:
        part = stream.decompress(packed, expected + 1)  # never more, whatever is packed
    except zlib.error:
        return None
    return part if len(part) == expected and stream.eof and not stream.unused_data else None


def _undo_floating(
    packed: npt.NDArray[np.uint8], shape: tuple[int, int, int, int, int, int], dtype: str
) -> npt.NDArray[Any]:
    """Undoes predictor 3 (Adobe Photoshop TIFF Technical Note 3).

    A row's bytes are sorted by significance, highest first, then stored as differences to the byte a pixel's
    number of samples before.
    """
    width, (*_, cols, samples) = int(dtype[1]), shape
    steps = packed.reshape(-1, cols * width, samples).transpose(0, 2, 1)
    sorted_bytes = _row_sums(np.ascontiguousarray(steps)).reshape(-1, samples, width, cols)
    values = np.ascontiguousarray(sorted_bytes.transpose(0, 1, 3, 2)).view(">" + dtype)
    return values.reshape(*shape[:4], samples, cols).swapaxes(-1, -2)


def _row_sums(steps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Running sums along the last axis of contiguous unsigned integers, wrapped as their type does.

    One run over everything, less what the rows before come to: numpy starts anew for each row, and takes
    several times longer for sums in 8 and 16 bits than in 64.
    """
    sums = np.cumsum(steps.reshape(-1), dtype=np.uint64).astype(steps.dtype).reshape(-1, steps.shape[-1])
    sums[1:] -= sums[:-1, -1:].copy()
    return sums.reshape(steps.shape)
