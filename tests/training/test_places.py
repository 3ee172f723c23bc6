from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from training.places import SplitConfig, assign, components
from training.shards import SPLITS

KM = 1 / 111.195  # degrees of latitude


def split(
    lat: list[float],
    lon: list[float] | float = 0.0,
    *,
    groups: list[str] | None = None,
    sources: list[str] | None = None,
    gsd: float = 30.0,
    **config: object,
) -> tuple[list[int], list[str]]:
    count = len(lat)
    place, codes = assign(
        np.array(lat, float),
        np.broadcast_to(np.array(lon, float), (count,)),
        np.full(count, gsd, np.float32),
        np.array(groups or [f"g{i}" for i in range(count)]),
        np.array(sources or ["s"] * count),
        SplitConfig.model_validate(config),
    )
    return place.tolist(), [SPLITS[c] for c in codes]


def test_tiles_are_linked_over_the_gap_between_them_and_chains_are_one_place() -> None:
    # 1.2 km tiles: centres 6 km apart leave a gap of 4.8 km, 6.5 km one of 5.3 km.
    lat = np.array([0, 6, 12, 18.5]) * KM
    found = components(lat, np.zeros(4), np.full(4, 0.6), 5.0)
    assert found.tolist() == [0, 0, 0, 1]


def test_large_pixels_make_large_tiles() -> None:
    lat = np.array([0, 20]) * KM
    assert len(set(components(lat, np.zeros(2), np.array([10.0, 10.0]), 5.0))) == 1
    assert len(set(components(lat, np.zeros(2), np.array([10.0, 0.6]), 5.0))) == 2


@pytest.mark.parametrize(("lat", "lon"), [([60, 60], [179.99, -179.99]), ([89.99, 89.99], [0, 180])])
def test_the_antimeridian_and_the_pole_do_not_part_neighbours(lat: list[float], lon: list[float]) -> None:
    assert len(set(components(np.array(lat, float), np.array(lon, float), np.full(2, 0.6), 5.0))) == 1


def test_tiles_without_a_place_go_by_their_group_within_their_source() -> None:
    nan = float("nan")
    place, _ = split([nan] * 4, groups=["a", "a", "b", "a"], sources=["s", "s", "s", "t"])
    assert place[0] == place[1]
    assert len(set(place)) == 3


def test_source_rule_takes_the_whole_place_and_the_protected_split_wins() -> None:
    lat = [0, 3 * KM, 6 * KM, 1, 2]
    sources = ["a", "b", "c", "b", "c"]
    rules = [
        {"split": "test", "source": "a"},
        {"split": "train", "source": "b"},
        {"split": "validation", "source": "c"},
    ]
    _, names = split(lat, sources=sources, rules=rules)
    assert names == ["test", "test", "test", "train", "validation"]


def test_published_splits_hold_tile_by_tile() -> None:
    rules = [{"split": "test", "source": "a"}, {"split": "train", "source": "b"}]
    _, names = split([0, KM], sources=["a", "b"], by="source", rules=rules)
    assert names == ["test", "train"]


def test_box_is_cut_out_of_its_place_with_a_margin() -> None:
    lat = [i * KM for i in range(0, 40, 2)]  # one chain
    box = [9.5 * KM, -1, 20.5 * KM, 1]
    place, names = split(lat, rules=[{"split": "test", "box": box}], validation=0, test=0)
    inside = {10, 12, 14, 16, 18, 20}
    # Centres up to 6.2 km from one in the box: 5 km between footprints of 1.2 km.
    margin = {4, 6, 8, 22, 24, 26}
    expected = ["test" if i in inside else "buffer" if i in margin else "train" for i in range(0, 40, 2)]
    assert names == expected
    assert len({place[i // 2] for i in inside}) == 1
    assert place[0] != place[10 // 2]


def test_other_data_does_not_move_a_place() -> None:
    lat = list(np.linspace(-70, 70, 60))
    _, before = split(lat, validation=0.3, test=0.3)
    _, after = split([80.0, *lat, -80.0], validation=0.3, test=0.3)
    assert after[1:-1] == before
    assert set(before) == {"train", "validation", "test"}
    assert split(lat, validation=0.3, test=0.3, seed=1)[1] != before


def test_a_draw_does_not_depend_on_the_order_of_tiles() -> None:
    # Places of several cells.
    lat = [base + step * 5.5 * KM for base in range(-60, 60, 3) for step in range(5)]
    place, names = split(lat, validation=0.3, test=0.3)
    assert len(set(place)) == 40
    assert split(lat[::-1], validation=0.3, test=0.3)[1] == names[::-1]


def test_tiles_that_extend_a_place_seldom_change_its_draw() -> None:
    starts = [base - 0.02 for base in range(-60, 60, 2)]  # the tile before each lies in another cell
    lat = [base + step * 5.5 * KM for base in starts for step in range(8)]
    _, before = split(lat, validation=0.3, test=0.3)
    _, after = split([*(base - 5.5 * KM for base in starts), *lat], validation=0.3, test=0.3)
    moved = sum(a != b for a, b in zip(before, after[len(starts) :], strict=True)) / len(before)
    assert moved < 0.2  # 0.12; with the cell of the first tile 0.63


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), min_size=2, max_size=40),
    seed=st.integers(0, 9),
)
def test_no_two_splits_are_nearer_than_the_distance(points: list[tuple[float, float]], seed: int) -> None:
    lat, lon = map(np.array, zip(*points, strict=True))
    _, names = split(lat.tolist(), lon.tolist(), validation=0.3, test=0.3, seed=seed)
    gap = np.hypot(lat[:, None] - lat, lon[:, None] - lon) / KM - 1.2
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            assert a == b or gap[i, j] > 5 - 0.5  # positions are rounded to a quarter of a kilometre


@pytest.mark.parametrize(
    "config",
    [
        {"validation": 0.7, "test": 0.7},
        {"rules": [{"split": "test"}]},
        {"rules": [{"split": "test", "source": "a", "box": [0, 0, 1, 1]}]},
        {"rules": [{"split": "test", "box": [1, 0, 0, 1]}]},
        {"by": "source", "rules": [{"split": "test", "box": [0, 0, 1, 1]}]},
        {"distance": 5},
    ],
)
def test_impossible_splits_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig.model_validate(config)
