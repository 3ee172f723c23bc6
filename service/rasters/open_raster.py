"""A raster as a request sends it, open for reading in parts: one file, or one file for each band."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.bands import BANDS
from model.metadata import Acquisition
from model.tile_errors import TileError
from model.tiles import find_missing
from service.files import MTL_PART, QA_PART, Delivery, File, Source
from service.nodata import Nodata, declare
from service.rasters import mtl, quality
from service.rasters.georeference import PixelWindow
from service.rasters.geotiff import GeotiffError, Header, Limits, Reader


class OpenRaster:
    """Header, pixels and quality flags of a source. One thread may use it at a time; closed by `with`.

    A delivery is one raster of the bands SR_B1 to SR_B7; `acquired` is what its MTL says.

    Args:
        source: a file or a delivery.
        limits: of every file.
        whole: whether all pixels will be in memory at once.
        nodata: what the request says instead of the files.

    Raises:
        GeotiffError: a file cannot be read, or is too large.
        TileError: the files of a delivery do not fit each other, or are of another sensor.
    """

    def __init__(self, source: Source, limits: Limits, *, whole: bool, nodata: Nodata | None = None) -> None:
        self._open = ExitStack()
        self._quality: Reader | None = None
        self._quality_band: int | None = None  # of the only file
        self.acquired: Acquisition | None = None
        self._nodata: tuple[float | None, ...] = ()
        self._said = nodata
        try:
            if isinstance(source, File):
                self._readers = [self._reader(source, limits, whole)]
                self.header = self._readers[0].header
                self._quality_band = quality.band(self.header.descriptions)
                _check_pages(self.header)
            else:
                self._open_delivery(source, limits, whole)
        except BaseException:
            self._open.close()
            raise
        self.block_rows: int = max(reader.block_rows for reader in self._readers)
        self.block_cols: int = max(reader.block_cols for reader in self._readers)

    @property
    def has_quality(self) -> bool:
        """Whether QA_PIXEL came, as a part or as a band."""
        return self._quality is not None or self._quality_band is not None

    def read(
        self, window: PixelWindow | None = None, bands: tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """Pixels (bands, height, width) of a window and of 1-based bands, of all if None.

        Those that a mask inside the file hides are 0, which is no value of a band; so are those that an alpha
        band hides, unless it is among the bands.
        """
        if len(self._readers) == 1:
            return _unhidden(self._readers[0], window, bands)
        wanted = range(1, len(self._readers) + 1) if bands is None else bands
        parts = [_unhidden(self._readers[band - 1], window, (1,)) for band in wanted]
        for part, band in zip(parts, wanted, strict=True):
            if self._nodata and (nodata := self._nodata[band - 1]) is not None:
                part[part == nodata] = 0
        return np.concatenate(parts)

    def read_quality(self, window: PixelWindow | None = None) -> npt.NDArray[np.uint16] | None:
        """QA_PIXEL (height, width) of a window; None if it did not come."""
        if self._quality_band is not None:
            return quality.flags_of(_unhidden(self._readers[0], window, (self._quality_band,))[0])
        if self._quality is None:
            return None
        return quality.flags_of(_unhidden(self._quality, window, (1,))[0])

    def close(self) -> None:
        """Lets the files go."""
        self._open.close()

    def __enter__(self) -> OpenRaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reader(self, file: File, limits: Limits, whole: bool) -> Reader:
        with file.content() as content:
            reader = self._open.enter_context(Reader(content, limits, whole=whole))
        declare(reader.header, self._said)
        return reader

    def _open_delivery(self, delivery: Delivery, limits: Limits, whole: bool) -> None:
        said = None if delivery.mtl is None else mtl.parse(delivery.mtl)
        mtl.check_product(said, delivery.source)
        self.acquired = None if said is None else said.acquired
        if whole:  # the limit is one for all bands
            limits = replace(limits, max_decoded_bytes=limits.max_decoded_bytes // len(BANDS))
        self._readers = []
        for name, file in zip(BANDS, delivery.bands, strict=True):
            self._readers.append(self._named(name, file, limits, whole))
            _check_same(name, self._readers[-1].header, self._readers[0].header)
        if delivery.qa_pixel is not None:
            self._quality = self._named(QA_PART, delivery.qa_pixel, limits, whole)
            _check_same(QA_PART, self._quality.header, self._readers[0].header, pixels=False)
            try:
                quality.check_type(self._quality.header.dtype)
            except ValueError as error:
                raise TileError("unsupported-pixel-type", str(error)) from error
        headers = [reader.header for reader in self._readers]
        nodata = [header.nodata for header in headers]
        if len(set(nodata)) > 1:  # each band by its own, while it is read
            self._nodata = tuple(nodata)
        self.header = replace(
            headers[0],
            count=len(headers),
            nodata=None if self._nodata else nodata[0],
            scales=tuple(header.scales[0] for header in headers),
            offsets=tuple(header.offsets[0] for header in headers),
            descriptions=BANDS,
            alpha=False,
        )

    def _named(self, name: str, file: File, limits: Limits, whole: bool) -> Reader:
        """The reader of a part, whose name stands in what is wrong with it."""
        try:
            reader = self._reader(file, limits, whole)
        except GeotiffError as error:
            raise GeotiffError(error.code, f"part {name}: {error.message}") from error
        if reader.header.count - reader.header.alpha != 1:
            raise TileError(
                "wrong-band-count",
                f"part {name} has {reader.header.count} bands; expected one, as USGS delivers it (a file "
                f"with all seven goes into the part 'tile'; {MTL_PART} and {QA_PART} go with single bands)",
            )
        return reader


def _unhidden(reader: Reader, window: PixelWindow | None, bands: tuple[int, ...] | None) -> npt.NDArray[Any]:
    last = reader.header.count
    by_alpha = reader.header.alpha and bands is not None and last not in bands
    pixels = reader.read(window, (*bands, last) if by_alpha and bands is not None else bands)
    mask = reader.read_mask(window)
    if mask is not None:
        pixels[:, ~mask] = 0
    if by_alpha:
        pixels, alpha = pixels[:-1], pixels[-1]
        pixels[:, find_missing(alpha, None)] = 0
    return pixels


def _check_pages(header: Header) -> None:
    """Refuses a file with a page for each band, as tifffile writes an array: only the first is read."""
    if header.pages > 1 and header.count < len(BANDS):
        raise TileError(
            "wrong-band-count",
            f"the file has {header.pages} pages, the first with {header.count} of the bands; expected all "
            "seven in one page, as rasterio and GDAL write them, and tifffile with planarconfig='separate', "
            "photometric='minisblack'",
        )


def _check_same(name: str, header: Header, first: Header, *, pixels: bool = True) -> None:
    """Refuses a band that does not lie on the first one's pixels."""
    came = {"size": (header.width, header.height), "CRS": header.crs, "transform": header.transform}
    expected = {"size": (first.width, first.height), "CRS": first.crs, "transform": first.transform}
    if pixels:
        came["pixel type"], expected["pixel type"] = header.dtype, first.dtype
    for what, found in came.items():
        if found != expected[what]:
            raise TileError(
                "wrong-size",
                f"part {name} has the {what} {found}, {BANDS[0]} has {expected[what]}; expected the bands of "
                "one product, all alike",
            )
