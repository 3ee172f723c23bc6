"""A published-layout checkpoint, imported, exported and served, gives the published tokens over HTTP."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from model import export, published
from service.app import create_app
from service.settings import Settings
from tests.rasters import geotiff

HERE = Path(__file__).resolve().parents[1] / "golden"
TOLERANCE = 2e-5  # of the largest reference value
DEGREE = 30 / 111_320  # of latitude, a pixel of 30 m


@pytest.mark.parametrize("name", ["tiny", pytest.param("XXS", marks=pytest.mark.shared)])
def test_served_tokens_are_the_published_ones(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = HERE if name == "tiny" else request.getfixturevalue("shared") / "golden"
    source = folder / f"reference_{name}"
    config = published.read_config(source.with_suffix(".json"))
    export.export(published.import_reference(source.with_suffix(".pth"), config), tmp_path / "bundle")
    golden = np.load(source.with_suffix(".npz"))
    settings = Settings(bundle=tmp_path / "bundle", engine_threads=1, log_level="warning")
    with TestClient(create_app(settings)) as client:
        for given in ("request", "file", "none"):
            want = golden["tokens_without_metadata" if given == "none" else "tokens"]
            got = np.concatenate([_served(client, golden, i, given) for i in range(len(want))])
            assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max(), given


def _served(client: TestClient, golden: dict[str, np.ndarray], index: int, given: str) -> np.ndarray:
    """Tokens of one golden tile whose place is told by the request, by the file's georeferencing, or not."""
    lat, lon = float(golden["lat"][index]), float(golden["lon"][index])
    params = {"pooling": "tokens", "format": "npy", "units": "dn"}
    if given != "none":
        params["datetime"] = f"{golden['time'][index]}Z"
    if given == "request":
        params |= {"lat": str(lat), "lon": str(lon)}
    place: dict[str, Any] = {"crs": None}
    if given == "file":
        origin = (lon - 20 * DEGREE, lat + 20 * DEGREE)
        place = {"crs": "EPSG:4326", "origin": origin, "pixel_size": DEGREE}
    response = client.post(
        "/embed",
        content=geotiff(golden["dn"][index], **place),
        params=params,
        headers={"Content-Type": "image/tiff"},
    )
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content), allow_pickle=False)
