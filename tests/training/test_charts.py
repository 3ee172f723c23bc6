"""Plots of scores that cannot be told."""

from __future__ import annotations

from typing import Any

import pytest

from training import charts
from training.features import BAND_STATISTICS, ENCODER

UNKNOWN = {"value": None, "low": None, "high": None}
NO_INTERVAL = {"value": 0.5, "low": None, "high": None}


@pytest.mark.parametrize("score", [UNKNOWN, NO_INTERVAL])
def test_land_cover_of_one_class(score: dict[str, float | None]) -> None:
    """Where all windows have the same share of it, R² is none, of the encoder and of its baselines."""

    def row(features: str, pooling: str, metadata: str) -> dict[str, Any]:
        return {"features": features, "pooling": pooling, "metadata": metadata, "scores": {"water": score}}

    rows = [row(ENCODER, "mean", "on"), row(BAND_STATISTICS, "", "off")]
    made = charts.land_cover_chart("scene lake", {"windows": 12, "rows": rows})
    assert [axes.get_title() for axes in made.axes] == ["water"]
