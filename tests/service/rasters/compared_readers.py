"""Reads a GeoTIFF with GDAL and without it, and compares to the bit."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from unittest import mock

import pytest

from service.rasters.geotiff import GeotiffError, Header, Limits, Reader

LIMITS = Limits(max_decoded_bytes=20_000_000)
NAMES = [f"SR_B{band}" for band in range(1, 8)]


def without_plain() -> AbstractContextManager[object]:
    """Every file is read by GDAL."""
    return mock.patch("service.rasters.geotiff.plain_tiff.parse", return_value=None)


def both(data: bytes, limits: Limits = LIMITS) -> bool:
    """Reads a file both ways, compares, and says whether the second time was without GDAL."""
    refusal = None
    try:
        with without_plain(), Reader(data, limits, whole=True) as reader:
            assert not reader.plain
            expected, pixels = reader.header, reader.read()
    except GeotiffError as error:
        refusal = error.message
    if refusal is not None:
        with pytest.raises(GeotiffError) as caught, Reader(data, limits, whole=True) as reader:
            reader.read()
        assert caught.value.message == refusal
        return False
    for _ in range(2):  # the first may be GDAL's, which its CRS is learned from
        with Reader(data, limits, whole=True) as reader:
            header, found, plain = reader.header, reader.read(), reader.plain
        for name in Header.__dataclass_fields__:
            came, wanted = getattr(header, name), getattr(expected, name)
            if isinstance(wanted, float) and math.isnan(wanted):
                came, wanted = str(came), str(wanted)
            assert came == wanted, name
        assert header.center == expected.center
        assert header.gsd_m == expected.gsd_m
        assert found.dtype == pixels.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert found.tobytes() == pixels.tobytes()
        assert found.shape == pixels.shape
    return plain
