"""The nomenclatures."""

from __future__ import annotations

import csv
import json

import pytest

from model.labels import (
    BIGEARTHNET_19,
    BIGEARTHNET_43_TO_19,
    BIGEARTHNET_DROPPED,
    EUROSAT_10,
    LabelError,
    to_bigearthnet_19,
)


def test_all_43_names_are_merged_or_dropped():
    assert len(BIGEARTHNET_43_TO_19) == 32
    assert len(BIGEARTHNET_DROPPED) == 11
    assert not BIGEARTHNET_DROPPED & BIGEARTHNET_43_TO_19.keys()
    assert len(BIGEARTHNET_19) == 19 == len(set(BIGEARTHNET_43_TO_19.values()))
    assert len(EUROSAT_10) == 10
    assert list(EUROSAT_10) == sorted(EUROSAT_10)


def test_merging():
    names = ["Sea and ocean", "Rice fields", "Airports", "Non-irrigated arable land", "Peatbogs"]
    assert to_bigearthnet_19(names) == ("Arable land", "Inland wetlands", "Marine waters")
    assert to_bigearthnet_19(["Bare rock"]) == ()
    assert to_bigearthnet_19(BIGEARTHNET_19) == BIGEARTHNET_19
    with pytest.raises(LabelError, match="'sea'"):
        to_bigearthnet_19(["sea"])


@pytest.mark.shared
def test_every_label_of_the_real_tiles_is_known(shared):
    folder = shared / "data" / "ben_landsat"
    seen = [
        to_bigearthnet_19(json.loads(path.read_text())["labels"])
        for path in sorted((folder / "labels").glob("*.json"))
    ]
    with (folder / "samples.csv").open() as file:
        assert len(list(csv.reader(file))) - 1 == 148
    assert len(seen) == 147
    assert len({name for names in seen for name in names}) > 12
