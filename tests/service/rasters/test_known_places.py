"""What GeoKeys say is learned from GDAL once, and bounded."""

from __future__ import annotations

import pytest

from service.rasters import known_places
from service.rasters.geotiff import Reader
from service.rasters.plain_tiff import parse
from tests.rasters import geotiff
from tests.service.rasters.compared_readers import LIMITS


def test_a_file_with_new_keys_is_read_by_gdal_once() -> None:
    known_places.forget()
    data, moved = geotiff(), geotiff(origin=(400_000.0, 5_300_000.0))
    readers = [Reader(file, LIMITS, whole=True) for file in (data, moved, data, geotiff(crs="EPSG:32634"))]
    assert [reader.plain for reader in readers] == [False, True, True, False]
    assert readers[0].header.place == readers[2].header.place
    assert readers[1].header.transform == (30.0, 0.0, 400_000.0, 0.0, -30.0, 5_300_000.0)
    for reader in readers:
        reader.close()


def test_what_is_known_of_keys_is_bounded() -> None:
    for number in range(300):
        known_places.learn(
            _with_name(number), ("name", "WKT"), (30.0, 0.0, 386_355.0, 0.0, -30.0, 5_293_245.0)
        )
    assert len(known_places._known) == known_places._MAX_KEPT
    with pytest.raises(known_places.UnknownError):
        known_places.place(_with_name(0))
    assert known_places.place(_with_name(299)).crs == "name"
    known_places.forget()


def _with_name(number: int):
    data = geotiff().replace(b"zone 33N", f"zone{number:4d}".encode())
    return parse(data, LIMITS)


def test_nothing_is_learned_from_a_transform_that_tags_do_not_say() -> None:
    known_places.forget()
    known_places.learn(parse(geotiff(), LIMITS), ("name", "WKT"), (30.0, 0.0, 1.0, 0.0, -30.0, 2.0))
    with pytest.raises(known_places.UnknownError):
        known_places.place(parse(geotiff(), LIMITS))
