"""What an evaluation says in short: better than guessing, and better than no training?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.features import BAND_STATISTICS, ENCODER, UNTRAINED
from training.reconstruction import BASELINES, MODEL

POOLINGS = ("mean", "patch_mean_std")  # the service's default, and the one with texture in it

PLACES = {
    False: "held-out places",
    True: "places that were seen in pretraining",
    None: "places that may have been seen in pretraining",
}


def findings(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that a reader asks for first, JSON-ready.

    Args:
        result: of `evaluate.evaluate`.

    Returns:
        `protocol`: on what it was measured; `reconstruction`: error of the model and the baselines over all
        bands, and the bands in which the model is better beyond the interval; `measures`: scores with
        metadata on and what they are above the untrained encoder and the band statistics. Every estimate is
        {value, low, high}, 95 %. Of a bundle, which has no decoder, there is no `reconstruction`.
    """
    where = PLACES[result["data"]["seen_in_pretraining"]]
    found = {
        "protocol": f"{where}; 95 % intervals from a bootstrap over places",
        "step": result["checkpoint"]["info"].get("step"),
        "measures": _measures(result),
    }
    if "reconstruction" in result:
        found["reconstruction"] = _reconstruction(result["reconstruction"])
    return found


def _reconstruction(part: Mapping[str, Any]) -> dict[str, Any]:
    table = part["all"]
    return {
        "unit": part["unit"],
        "tiles": part["tiles"],
        "places": part["places"],
        "error": {name: table["error"][name]["all bands"] for name in (MODEL[0], *BASELINES)},
        "better_than": {name: _better(table["model_minus"][name]) for name in BASELINES},
    }


def _better(differences: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    return [band for band, e in differences.items() if e["high"] is not None and e["high"] < 0]


def _measures(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    sought: list[tuple[str, Sequence[Mapping[str, Any]], str, str]] = []
    for name, part in result.get("land_cover", {}).items():
        sought.append((f"land-cover R² (mean), {name}", part["rows"], "ridge", "mean"))
    for name, task in result["tasks"].items():
        score, title = ("micro_map", "micro mAP") if task["kind"] == "multi-label" else ("accuracy",) * 2
        sought.append((f"{name} {title}, tuned", task["probes"], "tuned", score))
        sought.append((f"{name} {title}, published", task["probes"], "published", score))
        sought.append((f"{name} retrieval mAP", task["retrieval"]["rows"], "raw", "map"))
    return [
        {
            "measure": title,
            "pooling": row["pooling"],
            "encoder": row["scores"][score],
            **{f"minus {b}": row["minus"][b][score] for b in (UNTRAINED, BAND_STATISTICS)},
        }
        for title, rows, protocol, score in sought
        for row in rows
        if (row["features"], row["metadata"], row["protocol"]) == (ENCODER, "on", protocol)
        and row["pooling"] in POOLINGS
    ]
