"""The pixels of a plain TIFF by way of C, through ctypes: a call holds no lock of the interpreter."""

from __future__ import annotations

import ctypes
import functools
import sys
from array import array
from ctypes import POINTER, Structure, c_char, c_int, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.rasters.plain_tiff import FLOATING, HORIZONTAL, Content, PlainTiff

LIBRARY = Path(__file__).with_name("native") / "landmoe_pixels.so"
_ORDER = "<" if sys.byteorder == "little" else ">"


class _Layout(Structure):
    """As in native/samples.h."""

    _fields_ = tuple(
        (name, c_int32)
        for name in (
            *("width", "height", "bands", "sample_bytes", "block_width", "block_height"),
            *("tiled", "apart", "swapped", "steps"),
        )
    )


def usable(tiff: PlainTiff) -> bool:
    """Whether the pixels of this file can be read here."""
    return tiff.predictor != FLOATING and _library(LIBRARY) is not None


def read(data: Content, tiff: PlainTiff) -> npt.NDArray[Any] | None:
    """Pixels (bands, height, width) in this machine's byte order; None where a block is not as it should be.

    None, too, where the package was built without a compiler.

    Args:
        data: the whole file.
        tiff: what it says of itself; its sizes are within limits, its predictor not FLOATING.
    """
    library = _library(LIBRARY)
    if library is None:
        return None
    bands = np.empty((tiff.bands, tiff.height, tiff.width), tiff.dtype)
    good = library.landmoe_pixels(
        data if isinstance(data, bytes) else np.frombuffer(data, np.uint8).ctypes.data,
        len(data),
        tiff.compression,
        _layout(
            tiff.width,
            tiff.height,
            tiff.bands,
            bands.itemsize,
            tiff.block_width,
            tiff.block_height,
            tiff.tiled,
            tiff.apart,
            tiff.order != _ORDER,
            tiff.predictor == HORIZONTAL,
        ),
        array("I", tiff.block_offsets).tobytes(),
        array("I", tiff.block_sizes).tobytes(),
        ctypes.byref(c_char.from_buffer(bands.data)),  # in a sixth of the time that .ctypes takes
    )
    return bands if good else None


@functools.lru_cache(maxsize=64)
def _layout(*values: int) -> _Layout:
    return _Layout(*values)


@functools.cache
def _library(path: Path) -> ctypes.CDLL | None:
    """The library; None where the package was installed without it."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    layout = POINTER(_Layout)
    library.landmoe_pixels.argtypes = (c_void_p, c_size_t, c_int, layout, c_void_p, c_void_p, c_void_p)
    return library
