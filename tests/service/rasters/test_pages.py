"""Files with several pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
from starlette.testclient import TestClient

from tests.rasters import ORIGIN, Pixels, dn_pixels, geotiff
from tests.service.embed_requests import send


def pages(folder: Path, pictures: list[Pixels], *, overviews: bool = False) -> bytes:
    """A file with one picture (bands, height, width) after the other."""
    path = folder / "pages.tif"
    path.write_bytes(geotiff(pictures[0]))
    for picture in pictures[1:]:
        count, height, width = picture.shape
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=picture.dtype,
            crs="EPSG:32633", transform=rasterio.Affine(30, 0, ORIGIN[0], 0, -30, ORIGIN[1]),
            APPEND_SUBDATASET="YES",
        ) as dataset:  # fmt: skip
            dataset.write(picture)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2], rasterio.enums.Resampling.average)
    return path.read_bytes()


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_a_page_for_each_band_is_no_raster(client: TestClient, tmp_path: Path, fit: str) -> None:
    data = pages(tmp_path, [dn_pixels(count=1, seed=seed) for seed in range(7)])
    response = send(client, data, fit=fit)
    assert response.json()["type"].endswith("wrong-band-count")
    assert response.json()["detail"].startswith(
        "the file has 7 pages, the first with 1 of the bands; expected"
    )


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(("number", "overviews", "codes"), [(1, True, []), (3, False, ["further-pages"])])
def test_further_pages_are_told(
    client: TestClient, tmp_path: Path, number: int, overviews: bool, codes: list[str], fit: str
) -> None:
    data = pages(tmp_path, [dn_pixels(seed=seed) for seed in range(number)], overviews=overviews)
    [item] = send(client, data, fit=fit).json()["data"]
    [first] = send(client, geotiff(), fit=fit).json()["data"]
    assert [warning["code"] for warning in item["warnings"]] == codes
    assert item["embedding"] == first["embedding"]
