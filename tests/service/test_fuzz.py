"""Whatever bytes come, the answer is a result or a problem object, never a defect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.parameters import EmbedOptions, TileParameters
from service.settings import Settings
from tests.rasters import geotiff
from tests.service.fake_engine import FakeEngine

TIFF = {"Content-Type": "image/tiff"}
GOOD = [
    geotiff(),
    geotiff(compress="deflate", predictor=2),
    geotiff(tiled=True, blockxsize=16, blockysize=16, interleave="band", nodata=0, BIGTIFF="YES"),
]
NAMES = [*TileParameters.model_fields, *EmbedOptions.model_fields, "stride", "tile", ""]
# Text that a parser of one of the parameters might take for more than it is.
VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", " ", "1e400", "nan", "-0", "0x1", "١", "1,2,3,4,5,6,7", "0,0,0,0,0,0,0", "-1"]),
    st.sampled_from(["9999-12-31T23:59:60-23:59", "0001-01-01T00:00:00+23:59", "2020-W01-1", "\0", "mean"]),
    st.floats().map(str),
)
slow = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = create_app(Settings(max_upload_mb=1, log_level="error"), FakeEngine())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with some bytes changed, cut short, or with something in between."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    # What a reader believes stands in the first bytes and, in GDAL's files, in the directory after them.
    position = st.integers(0, len(data) - 1) | st.integers(0, 600)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(position)
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@slow
@given(data=damaged())
def test_damaged_tiffs(client: TestClient, data: bytes) -> None:
    check(client.post("/embed", content=data, headers=TIFF))


@slow
@given(data=st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: b"II*\0" + b))
def test_random_bytes(client: TestClient, data: bytes) -> None:
    check(client.post("/embed", content=data, headers=TIFF))
    check(client.post("/embed", files={"tile": data}))


@slow
@given(params=st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), VALUES), max_size=5))
def test_any_parameters(client: TestClient, params: list[tuple[str, str]]) -> None:
    form = [(name, (None, value)) for name, value in params]
    check(client.post("/embed", files=[*form, ("tile", ("a.tif", GOOD[0]))]))
    texts = [(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in params]
    check(client.post("/embed", params=texts, content=GOOD[0], headers=TIFF))


@slow
@given(
    body=st.binary(max_size=200) | st.binary(max_size=80).map(lambda b: b"--x\r\n" + b + b"\r\n--x--\r\n"),
    boundary=st.sampled_from(
        [
            "; boundary=x",
            "",
            "; charset=idna; boundary=x",
            "; boundary=",
            '; boundary="x',
            "; charset=nonsense; boundary=x",
        ]
    ),
)
def test_any_form(client: TestClient, body: bytes, boundary: str) -> None:
    check(client.post("/embed", content=body, headers={"Content-Type": f"multipart/form-data{boundary}"}))


@slow
@given(
    headers=st.dictionaries(
        st.sampled_from(["accept", "content-type", "x-request-id", "cache-control", "content-length"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    )
)
def test_any_headers(client: TestClient, headers: dict[str, str]) -> None:
    check(client.post("/embed", content=GOOD[0], headers=TIFF | headers))


def check(response: Any) -> None:
    assert response.status_code < 500, response.text
    if response.status_code == 200:
        assert response.headers["content-type"] in ("application/json", "application/x-npy")
    else:
        assert response.headers["content-type"] == "application/problem+json", response.text
        body = response.json()
        assert body["status"] == response.status_code
        assert body["type"].startswith("urn:landmoe:problem:")
