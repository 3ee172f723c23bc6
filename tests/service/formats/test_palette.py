"""Colours of classes: known ones where all are known, and never two alike."""

from __future__ import annotations

import colorsys

import pytest

from model.labels import BIGEARTHNET_19, EUROSAT_10
from service.formats.palette import palette


@pytest.mark.parametrize("labels", [BIGEARTHNET_19, EUROSAT_10])
def test_nomenclatures_have_their_own(labels: tuple[str, ...]) -> None:
    colours = palette(labels)
    assert len(set(colours)) == len(labels)
    assert colours != palette([f"{label} here" for label in labels])
    forest = labels.index("Forest" if "Forest" in labels else "Mixed forest")
    hue, saturation, _ = colorsys.rgb_to_hsv(*colours[forest])
    assert 0.2 < hue < 0.45  # green
    assert saturation > 0.5


def test_other_classes_have_colours_that_can_be_told_apart() -> None:
    colours = palette([str(number) for number in range(255)])
    assert len(set(colours)) == 255
    twelve = palette([str(number) for number in range(12)])
    least = min(
        sum(abs(a - b) for a, b in zip(one, other, strict=True))
        for one in twelve
        for other in twelve
        if one != other
    )
    assert least > 50
    assert all(0 <= value <= 255 for colour in colours for value in colour)


def test_one_unknown_class_leaves_no_known_colour() -> None:
    assert palette(["Forest", "Glacier"])[0] != palette(["Forest"])[0]
