"""Damaged scenes and deliveries: an answer that says what is wrong, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.fake_engine import FakeEngine

GOOD = [
    geotiff(dn_pixels(90, 85), compress="deflate", blockysize=8),
    geotiff(dn_pixels(90, 85), tiled=True, blockxsize=32, blockysize=32, interleave="band", nodata=0),
    geotiff(dn_pixels(81, 80), compress="lzw", predictor=2, BIGTIFF="YES"),
]
BANDS = deliveries.parts(flags=dn_pixels(count=1)[0], metadata=deliveries.mtl())
slow = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("spool")
    # Everything goes to disk, so that files are read from there.
    limits = Settings(max_upload_mb=1, spool_dir=folder, spool_above_mb=0, log_level="error")
    app = create_app(limits, FakeEngine())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
        assert app.state.spool.used == 0
    assert list(Path(folder).iterdir()) == []


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """The file with some bytes changed, perhaps cut short."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, 600) | st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@slow
@given(
    data=st.sampled_from(GOOD).flatmap(damaged),
    stride=st.integers(3, 90),
    wanted=st.sampled_from(["json", "npy", "ndjson", "parquet"]),
)
def test_damaged_scenes(client: TestClient, data: bytes, stride: int, wanted: str) -> None:
    params = {"fit": "grid", "stride": str(stride), "format": wanted}
    check(client.post("/embed", content=data, params=params, headers={"Content-Type": "image/tiff"}))


@slow
@given(part=st.sampled_from(sorted(BANDS)), data=st.data())
def test_damaged_deliveries(client: TestClient, part: str, data: st.DataObject) -> None:
    name, good = BANDS[part]
    files = BANDS | {part: (name, data.draw(damaged(good)))}
    fit = data.draw(st.sampled_from(["crop", "grid"]))
    check(client.post("/embed", files=files, data={"fit": fit, "max_cloud_fraction": "0.9"}))


def check(response: object) -> None:
    status = getattr(response, "status_code", 0)
    assert 0 < status < 500, getattr(response, "text", "")
