"""Answers as tables of pandas: a row for each tile or window, whatever became of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest

from service.client import Client, Tile
from service.clients.results import Answer, Classification, Failure, Prediction
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.test_client import local

KNOWN = [
    "id",
    "index",
    "source",
    "datetime",
    "lat",
    "lon",
    "valid_fraction",
    "crs",
    "units",
    "warnings",
    "error",
]
TILES = [
    Tile(data=geotiff(), name="a.tif", id="a", datetime="2020-08-02T18:31:00Z", lat=47.7771, lon=13.4912),
    b"broken",
    Tile(data=geotiff(crs=None, tags={"x": "y"}), datetime="2021-01-31"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local() as client:
        yield client


def test_a_row_for_each_tile(client: Client) -> None:
    answer = client.embed(TILES)
    table = answer.to_dataframe()
    assert list(table)[: len(KNOWN)] == KNOWN
    assert list(table)[len(KNOWN) :] == [f"embedding_{i}" for i in range(12)]
    assert table["id"].tolist() == ["a", "1", "2"]
    assert table["index"].tolist() == [0, 1, 2]
    assert table["source"].tolist()[0] == "a.tif"
    assert table["lat"].tolist()[0] == 47.7771
    assert table[["lat", "lon"]].isna().to_numpy().tolist() == [[False] * 2, [True] * 2, [True] * 2]
    assert table["datetime"].tolist() == [
        pandas.Timestamp("2020-08-02T18:31Z"),
        pandas.NaT,
        pandas.Timestamp("2021-01-31T00:00Z"),
    ]
    assert table["units"].tolist()[0] == "dn"
    assert table["error"].tolist()[1].startswith("not-a-tiff: the 6 bytes begin with b'broken'")
    assert [text is None for text in table["error"]] == [True, False, True]
    assert table["source"].tolist() == ["a.tif", "tile.tif", "tile.tif"]
    assert [isinstance(codes, list) for codes in table["warnings"]] == [True] * 3
    values = table.filter(like="embedding_").to_numpy()
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[[0, 2]], [item.values for item in answer.results])
    assert np.isnan(values[1]).all()


def test_a_row_for_each_window_of_a_scene(client: Client) -> None:
    pixels = np.concatenate([dn_pixels(120, 80), np.full((1, 120, 80), deliveries.CLOUD, np.uint16)])
    names = [*(f"SR_B{band}" for band in range(1, 8)), "QA_PIXEL"]
    table = client.embed([geotiff(pixels, descriptions=names), b"broken"], fit="grid").to_dataframe()
    assert table["row"].dtype == "Int64"
    assert table[["row", "col"]].head(6).to_numpy().tolist() == [[r, c] for r in range(3) for c in range(2)]
    assert table["row"].isna().tolist() == [False] * 6 + [True]
    assert table["cloud_fraction"].tolist()[:6] == [1.0] * 6
    assert table["lat"].head(6).nunique() == 6
    assert table["warnings"].tolist()[0] == ["cloudy"]
    assert table["index"].tolist() == [0] * 6 + [1]


def classified(*predictions: tuple[str, float]) -> Classification:
    return Classification(
        index=0,
        id="x",
        source=None,
        fields={"lat": 1.0, "lon": 2.0, "valid_fraction": 1.0},
        warnings=[],
        probe="p",
        predictions=[Prediction(label, probability) for label, probability in predictions],
        selected=[predictions[0][0]],
    )


def test_predictions_have_a_column_for_each_label() -> None:
    items = [
        classified(("Water", 0.75), ("source", 0.25)),
        Failure(1, "y", ValueError("no")),
        classified(("Forest", 1.0)),
    ]
    table = Answer(items, {}).to_dataframe()
    assert list(table)[len(KNOWN) :] == [
        "label", "probability", "selected", "Forest", "Water", "label source",
    ]  # fmt: skip
    assert table["label"].tolist() == ["Water", None, "Forest"]
    assert table["selected"].tolist() == [["Water"], [], ["Forest"]]
    assert table["error"].tolist()[1] == "no"
    np.testing.assert_array_equal(table["Water"], [0.75, np.nan, np.nan])
    np.testing.assert_array_equal(table["label source"], [0.25, np.nan, np.nan])
    np.testing.assert_array_equal(table["probability"], [0.75, np.nan, 1.0])


def test_nothing_and_only_failures(client: Client) -> None:
    assert list(client.embed([]).to_dataframe()) == KNOWN
    failed = client.embed([b"broken", b"broken as well"]).to_dataframe()
    assert list(failed) == KNOWN
    assert failed["error"].notna().all()


def test_the_file_of_a_failure_is_known(client: Client, tmp_path: Path) -> None:
    """Also of one that was not sent, and where no other tile of a request was any better."""
    (tmp_path / "broken.tif").write_bytes(b"broken")
    missing = [tmp_path / "missing.tif", Tile(data=b"broken", name="b.tif")]
    for tiles, sources in (
        ([*missing, tmp_path / "broken.tif"], ["missing.tif", "b.tif", "broken.tif"]),
        ([geotiff(), tmp_path / "broken.tif"], ["tile.tif", "broken.tif"]),
    ):
        answer = client.embed(tiles, keep_going=True)
        assert answer.to_dataframe()["source"].tolist() == sources
        assert [failure.source for failure in answer.failures] == sources[-len(answer.failures) :]


def test_an_answer_is_shown_in_a_line(client: Client) -> None:
    assert repr(client.embed(TILES)) == "<Answer of fake 0.0.1: 2 results, 1 failures>"


def test_tokens_are_no_row(client: Client) -> None:
    with pytest.raises(TypeError, match="105 tokens of 12"):
        client.embed(geotiff(), pooling="tokens").to_dataframe()


def test_without_pandas_it_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.embed(geotiff())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        answer.to_dataframe()
