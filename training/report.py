"""The result of an evaluation as Markdown: every score beside its baselines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.features import BAND_STATISTICS, ENCODER, PLACE_AND_TIME, UNTRAINED
from training.findings import findings
from training.metrics import MIN_POSITIVES

TITLES = {
    "micro_map": "micro mAP",
    "macro_map": "macro mAP",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "map": "mAP",
    "precision_at_10": "precision at 10",
    "mean": "mean",
}


def write(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `evaluation.json` and `evaluation.md` into a folder; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "evaluation.json", folder / "evaluation.md"]
    paths[0].write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    paths[1].write_text(markdown(result), encoding="utf-8")
    return paths


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    info = result["checkpoint"]["info"]
    data, trial = result["data"], result["settings"].get("trial", False)
    seen = {
        True: "were seen",
        False: "were not seen",
        None: "may have been seen (which tiles were is not known)",
    }
    lines = [
        f"# Evaluation of {info.get('name', 'an unnamed checkpoint')}",
        "",
        (f"{count:,} parameters, " if (count := result["checkpoint"]["parameters"]) else "An encoder, ")
        + ("trained" if info.get("trained") else "untrained")
        + (f", step {info['step']:,}" if "step" in info else "")
        + f". {data['tiles']:,} tiles in {data['places']:,} places, which "
        f"{seen[data['seen_in_pretraining']]} in pretraining: "
        + ", ".join(f"{name} {count:,}" for name, count in data["sources"].items())
        + ".",
        "",
        *(
            ["**A trial of whether everything runs (`--quick`): its figures mean little.**", ""]
            if trial
            else []
        ),
        "Brackets hold 95 % intervals from a bootstrap over places. A difference in bold excludes zero.",
        *(f"Left out: {text}." for text in data["labels_left_out"]),
        "",
    ]
    lines += _summary(result)
    if "reconstruction" in result:
        lines += _reconstruction(result["reconstruction"])
    for name, task in result["tasks"].items():
        lines += _task(name, task)
    for name, part in result.get("land_cover", {}).items():
        lines += _land_cover(name, part)
    settings = ", ".join(f"{k} {v}" for k, v in result["settings"].items())
    lines += ["## Settings", "", f"{settings}. {result['seconds']:.0f} s.", ""]
    return "\n".join(lines)


def _summary(result: Mapping[str, Any]) -> list[str]:
    found = findings(result)
    lines = ["## In short", ""]
    for baseline, bands in found.get("reconstruction", {}).get("better_than", {}).items():
        lines.append(
            f"- Masked patches are reconstructed better than by {baseline}, beyond the interval, in: "
            f"{', '.join(bands) or 'nothing'}."
        )
    baselines = [f"minus {b}" for b in (UNTRAINED, BAND_STATISTICS)]
    rows = [
        [m["measure"], m["pooling"], interval(m["encoder"], 3), *(difference(m[b], 3) for b in baselines)]
        for m in found["measures"]
    ]
    header = ["measure", "pooling", "encoder", *baselines]
    if lines[-1]:
        lines.append("")
    return [*lines, *table_of(header, rows)] if rows else lines


def _reconstruction(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Reconstruction of masked patches",
        "",
        f"{part['tiles']:,} tiles without invalid pixels in {part['places']:,} places, every place counted "
        f"once; {part['unit']}, 75 % masked.",
        "",
        "### All sources",
        "",
    ]
    lines += _error_table(part["all"])
    lines += ["### Difference of the model, metadata on, to each (negative: the model is better)", ""]
    lines += _error_differences(part["all"])
    lines += ["### By source, all bands", ""]
    first = next(iter(part["by_source"].values()))
    header = ["source", "tiles", "places", *first["error"]]
    rows = []
    for source, table in part["by_source"].items():
        errors = [interval(e["all bands"], 3) for e in table["error"].values()]
        rows.append([source, str(table["tiles"]), str(table["places"]), *errors])
    return lines + table_of(header, rows)


def _error_table(table: Mapping[str, Any]) -> list[str]:
    columns = list(next(iter(table["error"].values())))
    rows = [[name, *(interval(e[c], 3) for c in columns)] for name, e in table["error"].items()]
    return table_of(["", *columns], rows)


def _error_differences(table: Mapping[str, Any]) -> list[str]:
    columns = list(next(iter(table["model_minus"].values())))
    rows = [[name, *(difference(e[c], 3) for c in columns)] for name, e in table["model_minus"].items()]
    return table_of(["minus", *columns], rows)


def _task(name: str, task: Mapping[str, Any]) -> list[str]:
    unsupported = [f"{c['label']} ({c['positives']})" for c in task["classes"] if not c["supported"]]
    lines = [
        f"## {name}",
        "",
        f"{task['kind']}, {task['tiles']:,} tiles of {task['source']} in {task['places']:,} places, "
        f"{len(task['classes'])} classes; {task['folds']}-fold cross-validation over places.",
    ]
    if unsupported:
        lines.append(
            f"Unsupported, with fewer than {MIN_POSITIVES} positives, not scored and outside macro averages: "
            + ", ".join(unsupported)
            + "."
        )
    lines += ["", "### Linear probes", ""]
    lines += _score_table(task["probes"])
    lines += ["### Differences of the encoder to its baselines", ""]
    lines += _difference_table(task["probes"])
    chance = task["retrieval"]["chance"]
    random = (
        "No label occurs in two places, so that there is nothing to find."
        if chance is None
        else f"A random order gives {chance:.3f} in both columns."
    )
    lines += ["### Retrieval", "", random, ""]
    lines += _score_table(task["retrieval"]["rows"])
    lines += _difference_table(task["retrieval"]["rows"])
    shots = task["k_shot"]
    if not shots["curves"]:
        return lines
    lines += [
        "### Few labels",
        "",
        f"{TITLES[shots['score']]} over {shots['draws']} draws (2.5 to 97.5 % of them in brackets), k tiles "
        "of every class, on places held out in each draw.",
        "",
    ]
    ks = list(next(iter(shots["curves"].values())))
    rows = [
        [curve, *(f"{v['mean']:.3f} [{v['low']:.2f}, {v['high']:.2f}]" for v in points.values())]
        for curve, points in shots["curves"].items()
    ]
    return lines + table_of(["features", *(f"k = {k}" for k in ks)], rows)


def _land_cover(name: str, part: Mapping[str, Any]) -> list[str]:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in part["mean_fraction"].items())
    lines = [
        f"## Land-cover fractions: {name}",
        "",
        f"R² of ridge regressions on {part['windows']:,} windows"
        + (f", every {part['stride_px']} px" if part["stride_px"] else "")
        + f", in {part['blocks']} strips; {part['folds']} folds of neighbouring strips, no pixel in both "
        f"training and test. Mean shares: {shares}.",
        "",
    ]
    return lines + _score_table(part["rows"]) + _difference_table(part["rows"])


def _score_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    scores = list(rows[0]["scores"])
    header = ["features", "pooling", "metadata", "protocol", "dim", *(TITLES.get(s, s) for s in scores)]
    order = {ENCODER: 0, UNTRAINED: 1, BAND_STATISTICS: 2, PLACE_AND_TIME: 3}
    body = [
        [r["features"], r["pooling"], r["metadata"], r["protocol"], str(r["dim"])]
        + [interval(r["scores"][s], 3) for s in scores]
        for r in sorted(rows, key=lambda r: (r["protocol"] == "published", order[r["features"]]))
    ]
    return table_of(header, body)


def _difference_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Differences of the encoder with metadata on: the row that would be used."""
    ours = [r for r in rows if r["features"] == ENCODER and r["metadata"] == "on"]
    scores = list(ours[0]["scores"])
    header = ["pooling", "protocol", "minus", *(TITLES.get(s, s) for s in scores)]
    body = [
        [r["pooling"], r["protocol"], name, *(difference(found[s], 3) for s in scores)]
        for r in ours
        for name, found in r["minus"].items()
    ]
    return table_of(header, body)


def interval(e: Mapping[str, float | None], digits: int) -> str:
    """`0.512 [0.48, 0.55]`, or a dash for what is not known."""
    if e["value"] is None:
        return "–"
    if e["low"] is None:
        return f"{e['value']:.{digits}f}"
    return f"{e['value']:.{digits}f} [{e['low']:.{digits - 1}f}, {e['high']:.{digits - 1}f}]"


def difference(e: Mapping[str, float | None], digits: int) -> str:
    """`+0.051 [+0.01, +0.09]`, in bold where the interval excludes zero."""
    if e["value"] is None:
        return "–"
    if e["low"] is None or e["high"] is None:
        return f"{e['value']:+.{digits}f}"
    text = f"{e['value']:+.{digits}f} [{e['low']:+.{digits}f}, {e['high']:+.{digits}f}]"
    return f"**{text}**" if e["low"] > 0 or e["high"] < 0 else text


def table_of(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with a blank line after it."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
