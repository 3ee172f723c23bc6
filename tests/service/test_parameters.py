"""Parameters that are wrong, unknown or contradict one another are named, with what was expected."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.rasters import geotiff
from tests.service.embed_requests import TIFF, send


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"pooling": "max"}, ["pooling", "'max'", "'mean'", "'cls'"]),
        ({"lat": "north", "lon": "3"}, ["lat", "'north'", "number"]),
        ({"lat": "95", "lon": "3"}, ["lat", "95", "-90"]),
        ({"lat": "nan", "lon": "3"}, ["lat", "'nan'", "finite"]),
        ({"lat": "5"}, ["lat", "lon", "both"]),
        ({"datetime": "yesterday"}, ["datetime", "'yesterday'", "RFC 3339"]),
        ({"datetime": "2020-08-02T18:31:00 02:00"}, ["datetime", "RFC 3339", "%2B"]),  # a + came as a blank
        ({"metadata": '[{"date": "2020-08-02"}]'}, ["unknown parameter date", "known are", "datetime"]),
        ({"normalize": "perhaps"}, ["normalize", "'perhaps'"]),
        ({"bands": "1,2"}, ["bands", "seven"]),
        ({"units": "kelvin"}, ["units", "'kelvin'", "'reflectance'"]),
        ({"units": "dn", "scale": "2"}, ["units", "scale"]),
        ({"stride": "20"}, ["stride", "20", "fit=grid"]),
        ({"fit": "grid", "stride": "0"}, ["stride", "'0'"]),
        ({"fit": "stretch"}, ["fit", "'stretch'", "'crop'"]),
        ({"format": "shapefile"}, ["format", "'shapefile'", "'npy'", "'parquet'"]),
        ({"id": "x" * 501}, ["id", "500"]),
        ({"poling": "mean"}, ["'poling'", "pooling", "datetime"]),
    ],
)
def test_a_bad_parameter_is_named_with_what_was_expected(
    client: TestClient, params: dict[str, str], words: list[str]
) -> None:
    response = send(client, geotiff(), **params)
    assert response.status_code == 422
    for word in words:
        assert word in response.json()["detail"], response.json()["detail"]


@pytest.mark.parametrize("query", ["pooling=mean&pooling=cls", "lat=1&lat=2&lon=1"])
def test_contradicting_values_are_refused(client: TestClient, query: str) -> None:
    response = client.post(f"/embed?{query}", content=geotiff(), headers=TIFF)
    assert response.json()["type"].endswith("bad-parameter")


def test_query_and_form_do_not_mix_silently(client: TestClient) -> None:
    tile = {"tile": geotiff()}
    both = client.post("/embed?pooling=cls", files=tile, data={"pooling": "mean"})
    assert both.status_code == 422
    assert "query" in both.json()["detail"]
    apart = client.post("/embed?pooling=cls&lat=", files=tile, data={"pooling": "", "lat": "1", "lon": "2"})
    assert apart.status_code == 200
    assert (apart.json()["pooling"], apart.json()["data"][0]["lat"]) == ("cls", 1)


def test_a_truth_value_is_no_number(client: TestClient) -> None:
    data = {"metadata": '[{"lat": true, "lon": 1}]'}
    response = client.post("/embed", files={"tile": geotiff()}, data=data)
    assert response.status_code == 422
    assert "lat is true" in response.json()["detail"]


@pytest.mark.parametrize("metadata", ["[%s]", '[{"id": %s}]', '[{"datetime": %s, "lat": %s}]', "%s"])
@pytest.mark.parametrize("nested", ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "0" + "}" * 1000])
def test_json_may_nest_deeper_than_python_follows(client: TestClient, metadata: str, nested: str) -> None:
    data = {"metadata": metadata.replace("%s", nested)}
    response = client.post("/embed", files={"tile": geotiff()}, data=data)
    assert response.status_code == 422, response.text
    assert len(response.json()["detail"]) < 1000


@pytest.mark.parametrize(
    ("number", "kept"),
    [("18446744073709551615", True), ("1.5", True), ("20200802183100123456789", False), ("1e22", False)],
)
def test_an_id_is_kept_to_the_last_digit_or_refused(client: TestClient, number: str, kept: bool) -> None:
    data = {"metadata": f'[{{"id": {number}}}]'}
    response = client.post("/embed", files={"tile": geotiff()}, data=data)
    if kept:
        assert response.json()["data"][0]["id"] == number
    else:
        assert response.status_code == 422
        assert "id is" in response.json()["detail"]
