"""Untrusted bytes → the pixels and the place of a GeoTIFF, under limits."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.windows
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from service.allocator import WORTH_TRIMMING_BYTES, give_back_free_pages
from service.rasters import dataset_header, known_places, plain_geotiff, plain_pixels, plain_tiff
from service.rasters.georeference import PixelWindow
from service.rasters.plain_tiff import PlainTiff
from service.rasters.raster_header import GeotiffError as GeotiffError
from service.rasters.raster_header import Header as Header
from service.rasters.raster_header import Limits as Limits
from service.rasters.tiff_header import MAGIC, announced, with_readable_metadata

# GDAL's complaints about a damaged upload become the answer; on stderr anyone could make noise with them.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)
# Files without georeferencing are welcome. Set once: warnings.catch_warnings is not safe in worker threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# The upload stands alone: no side files (.aux.xml, .ovr, .msk, .tfw), nothing over the network. An upload can
# name a file or address for its overviews in GDAL_METADATA; it is never asked for them, and could not fetch.
_GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "GDAL_NUM_THREADS": "1",
}
# MB, of the whole process: every block is read once, in pieces of a few megabytes. GDAL would take 5 % of the
# memory, and keeps what it has until the file is closed.
os.environ.setdefault("GDAL_CACHEMAX", "8")
_LIMITS = Limits()
# How other files begin that are sent by mistake, and what to do with them.
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive does: send the files in it",
    b"\x1f\x8b": "gzip does: unpack it first",
    b"\x89HDF": "HDF5 and NetCDF do: gdal_translate makes a GeoTIFF of it",
    b"\0\0\0\x0cjP": "JPEG 2000 does: gdal_translate makes a GeoTIFF of it",
    b"\x89PNG": "a picture does, which has no reflectance",
    b"\xff\xd8\xff": "a picture does, which has no reflectance",
}
_NAME = "upload.tif"  # what GDAL calls the bytes in its messages
_MEMORY_FOLDER = re.compile(r"/vsimem/[^/\s]*/")
_MAX_TEXT = 200  # characters of GDAL's own words in a message

Content = bytes | memoryview | Path
"""A whole file in memory, or where it lies."""


class Reader:
    """An open GeoTIFF whose pixels are read in parts. One thread may use it at a time.

    A plain file in memory that is wanted as a whole is read here and now; GDAL is asked for every other one,
    and for the errors of all.

    Args:
        content: the file.
        limits: checked from the header.
        whole: whether all pixels will be in memory at once.

    Attributes:
        header: what the file says of itself.
        block_rows, block_cols: size of the blocks that are best read at once.
        plain: whether GDAL was not asked.

    Raises:
        GeotiffError: `not-a-tiff` (no TIFF magic), `unreadable-tiff` (damaged), `unsupported-pixel-type`
            (complex numbers), `too-large`.
    """

    def __init__(self, content: Content, limits: Limits = _LIMITS, *, whole: bool = False) -> None:
        magic, self._size = _beginning(content)
        if magic[:4] not in MAGIC:
            came = f"the {self._size:,} bytes begin with {magic!r}" if magic else "there are no bytes"
            came += next((f", as {what}" for start, what in _OTHERS.items() if magic.startswith(start)), "")
            raise GeotiffError(
                "not-a-tiff", f"{came}; expected a GeoTIFF, which begins with II*\\0 or MM\\0*"
            )
        tiff = None
        self.plain = False
        self._pixels: npt.NDArray[Any] | None = None
        self._masked = False
        if whole and not isinstance(content, Path) and (tiff := plain_tiff.parse(content, limits)):
            found = plain_geotiff.read(content, tiff)
            if found is not None:
                self.plain = True
                self._file = content, tiff
                self.header, self._pixels = found
                self.block_rows, self.block_cols = self.header.height, self.header.width
                return
        dataset_header.check_announced(announced(content), limits)
        self._open = ExitStack()
        self._bytes_read = 0  # through GDAL
        self._open_dataset(content, limits, tiff, whole=whole)

    def _open_dataset(self, content: Content, limits: Limits, tiff: PlainTiff | None, *, whole: bool) -> None:
        self._open.callback(self._give_back)  # the last thing that is done when it is closed
        with _explained(self._size), rasterio.Env(**_GDAL_OPTIONS):
            try:
                if isinstance(content, Path):
                    dataset = rasterio.open(content, driver="GTiff", sharing=False)
                else:
                    data = with_readable_metadata(bytes(content))
                    memory = self._open.enter_context(MemoryFile(data, filename=_NAME))
                    dataset = memory.open(driver="GTiff")
                self._dataset = self._open.enter_context(dataset)
                dataset_header.check(dataset, limits, whole=whole)
                self.header = dataset_header.read(dataset)
                # Shared by all bands. One that is made of an alpha band is left to who knows which are read.
                self._masked = dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
                self.block_rows, self.block_cols = map(max, zip(*dataset.block_shapes, strict=True))
                if tiff is not None:
                    known_places.learn(tiff, dataset_header.crs(dataset), dataset_header.affine(dataset))
            except BaseException:
                self._open.close()
                raise

    def read(self, window: PixelWindow | None = None, bands: Sequence[int] | None = None) -> npt.NDArray[Any]:
        """Pixels (bands, height, width) of a window (row_off, col_off, height, width) and 1-based bands.

        None are all of them.

        Raises:
            GeotiffError: they are damaged.
        """
        row, col, height, width = window or self.header.whole
        if self.plain:
            pixels = self._decoded()
            if bands is None and (window is None or window == self.header.whole):
                self._pixels = None  # they are the caller's now, to change
                return pixels
            chosen = slice(None) if bands is None else [band - 1 for band in bands]
            return np.array(pixels[chosen, row : row + height, col : col + width])
        indexes = None if bands is None else list(bands)
        with _explained(self._size), rasterio.Env(**_GDAL_OPTIONS):
            if window is None or window == self.header.whole:
                part: npt.NDArray[Any] = self._dataset.read(indexes)
            else:
                part = self._dataset.read(indexes, window=rasterio.windows.Window(col, row, width, height))
        self._bytes_read += part.nbytes
        return part

    def _decoded(self) -> npt.NDArray[Any]:
        """All pixels of a plain file, which could be read once; again where they were given away."""
        if self._pixels is None:
            pixels = plain_pixels.read(*self._file)
            assert pixels is not None  # noqa: S101  # as before
            self._pixels = pixels
        return self._pixels

    def read_mask(self, window: PixelWindow | None = None) -> npt.NDArray[np.bool_] | None:
        """Where (height, width) the mask inside the file lets pixels through; None if it has none.

        Raises:
            GeotiffError: it is damaged.
        """
        if not self._masked:
            return None
        row, col, height, width = window or self.header.whole
        with _explained(self._size), rasterio.Env(**_GDAL_OPTIONS):
            mask: npt.NDArray[np.uint8] = self._dataset.read_masks(
                1, window=rasterio.windows.Window(col, row, width, height)
            )
        return np.asarray(mask, np.bool_)

    def close(self) -> None:
        """Lets the file go."""
        if not self.plain:
            self._open.close()

    def _give_back(self) -> None:
        """GDAL kept blocks of the file until now, of a kilobyte each if the file says so."""
        if self._bytes_read >= WORTH_TRIMMING_BYTES:
            give_back_free_pages()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _beginning(content: Content) -> tuple[bytes, int]:
    if isinstance(content, Path):
        with content.open("rb") as file:
            return file.read(8), content.stat().st_size
    return bytes(content[:8]), len(content)


@contextmanager
def _explained(size: int) -> Iterator[None]:
    """Turns whatever damage makes rasterio, GDAL and their decoders raise into a GeotiffError."""
    try:
        yield
    except GeotiffError:
        raise
    except Exception as error:
        reason = _MEMORY_FOLDER.sub("", " ".join(str(error.__cause__ or error).split())).rstrip(".")
        raise GeotiffError(
            "unreadable-tiff",
            f"the {size:,} bytes begin as a TIFF but cannot be read: {reason[:_MAX_TEXT]}. "
            "Expected a complete, undamaged GeoTIFF",
        ) from error
