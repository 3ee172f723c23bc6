"""One file and what is said of it → what the network is fed, and what the answer says of it.

Runs in a worker thread, since reading a raster may take long. Small plain files are the exception: they take
less time than the way to a thread and back.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.bundle import Bundle
from model.metadata import Acquisition
from service.describe import PreparedTile, Said
from service.files import File, Source
from service.nodata import declare
from service.parameters import RequestOptions, TileParameters
from service.rasters import geotiff, plain_geotiff, plain_tiff, quality
from service.rasters.open_raster import OpenRaster
from service.when_and_where import where

_SMALL_BYTES = 65_536  # of a file and of its pixels; these are ready in half a millisecond,
_FEW_BLOCKS = 128  # unless they come in many pieces, each of which may have tables of its own


def prepare(
    source: Source,
    parameters: TileParameters,
    options: RequestOptions,
    bundle: Bundle,
    limits: geotiff.Limits,
) -> PreparedTile:
    """Reads a raster and prepares its tile as the bundle was trained.

    Args:
        source: what was uploaded.
        parameters: what the request says of it.
        options: how the raster becomes 40 x 40 px; not a grid.
        bundle: whose rules of preparation hold.
        limits: of the raster, checked before its pixels are read.

    Raises:
        GeotiffError: a file cannot be read, or is too large.
        TileError: no tile can be made of the raster.
        MetadataError: a datetime or place that is none.
    """
    said = Said(source, parameters, bundle)
    with OpenRaster(source, limits, whole=True, nodata=parameters.nodata) as raster:
        _check(raster.header, parameters, options, source)
        flags = raster.read_quality()  # before the pixels are given away
        return _prepared(said, options, raster.read(), flags, raster.header, raster.acquired).hashed()


def _check(
    header: geotiff.Header, parameters: TileParameters, options: RequestOptions, source: Source
) -> None:
    """Refuses what no pixel can change: a whole scene that came without `fit` is not unpacked for it."""
    tiles.select_bands(
        header.count, header.descriptions, parameters.bands, alpha=header.alpha, source=source.source
    )
    tiles.check_size(header.height, header.width, options.fit)


def is_small(source: Source) -> bool:
    """Whether a source is one file of few bytes in memory; what it unpacks to is another matter."""
    return isinstance(source, File) and isinstance(source.data, bytes) and len(source.data) <= _SMALL_BYTES


def prepare_small(
    source: Source,
    parameters: TileParameters,
    options: RequestOptions,
    bundle: Bundle,
    limits: geotiff.Limits,
) -> PreparedTile | None:
    """The same for a small plain file, in so little time that the event loop can do it; None for all others.

    Raises:
        TileError: as `prepare`.
        MetadataError: as `prepare`.
    """
    if not is_small(source):
        return None
    data = cast(bytes, cast(File, source).data)
    tiff = plain_tiff.parse(data, _small(limits))
    if tiff is None or len(tiff.block_sizes) > _FEW_BLOCKS:
        return None
    said = Said(source, parameters, bundle)
    if (found := plain_geotiff.read(data, tiff)) is None:
        return None
    header, pixels = found
    declare(header, parameters.nodata)
    _check(header, parameters, options, source)
    band = quality.band(header.descriptions)
    if header.alpha and band is not None:  # which it hides, too
        return None
    flags = None if band is None else quality.flags_of(pixels[band - 1])
    return _prepared(said, options, pixels, flags, header, None)


@lru_cache(maxsize=1)
def _small(limits: geotiff.Limits) -> geotiff.Limits:
    return replace(limits, max_decoded_bytes=min(limits.max_decoded_bytes, _SMALL_BYTES))


def _prepared(
    said: Said,
    options: RequestOptions,
    pixels: NDArray[Any],
    flags: NDArray[np.uint16] | None,
    header: geotiff.Header,
    acquired: Acquisition | None,
) -> PreparedTile:
    source, parameters = said.source, said.parameters
    seven = tiles.prepare(
        pixels,
        nodata=header.nodata,
        descriptions=header.descriptions,
        alpha=header.alpha,
        bands=parameters.bands,
        units=parameters.units,
        scale=parameters.scale,
        offset=parameters.offset,
        file_scales=header.scales,
        file_offsets=header.offsets,
        source=source.source,
    )
    tile = tiles.fit(seven.dn, seven.valid, options.fit)
    flags = None if flags is None else tiles.cut_window(flags, tile.window)
    cloudy = clouds(flags, options.max_cloud_fraction)
    if cloudy is not None and options.max_cloud_fraction is not None and cloudy > options.max_cloud_fraction:
        raise tiles.TileError(
            "too-cloudy",
            f"QA_PIXEL calls {cloudy:.1%} of the valid pixels cloud or cirrus; max_cloud_fraction allows "
            f"{options.max_cloud_fraction:.1%}",
        )
    description = said.of(header, acquired, seven.units)
    description.warnings += [*seven.warnings, *tiles.pixel_size_warning(header.gsd_m, tile.window)]
    return description.tile(tile, where(said.parameters, header, description.warnings), flags)


def clouds(flags: NDArray[np.uint16] | None, allowed: float | None) -> float | None:
    """The share of cloudy pixels; None where QA_PIXEL did not come.

    Raises:
        TileError: a limit was given, and there is nothing to hold it against.
    """
    if flags is not None:
        return quality.cloud_fraction(flags)
    if allowed is not None:
        raise tiles.TileError(
            "bad-parameter",
            f"max_cloud_fraction is {allowed:g} and no QA_PIXEL came; expected a part or a band of that name "
            "beside SR_B1 to SR_B7",
        )
    return None
