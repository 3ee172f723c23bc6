"""The records of a GPU bench as Markdown, for docs/performance.md: medians, the hardware named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]

_PARITY = {
    "cosine_loss_mean": "mean",
    "cosine_loss_cls": "cls",
    "cosine_loss_token": "worst token",
    "moved_tokens": "moved tokens",
    "max_relative_error": "largest error",
    "alone_against_batch": "alone / batch",
}


def markdown(files: Sequence[Path]) -> str:
    """Tables of the records in `files`, in the order ceilings, parity, throughput."""
    records = [json.loads(file.read_text()) for file in files]
    if not records:
        return "Nothing has been measured yet.\n"
    lines = [_hardware(records[0]), ""]
    for record in _of(records, "gpu ceilings"):
        lines += _ceilings(record)
    for record in _of(records, "gpu parity"):
        lines += _parity(record)
    if throughput := list(_of(records, "gpu throughput")):
        lines += _throughput(throughput)
    absent = {name: why for record in records for name, why in record["absent"].items()}
    if absent:
        lines += ["Not measured: " + "; ".join(f"{name} ({why})" for name, why in absent.items()) + ".", ""]
    return "\n".join(lines)


def _of(records: Sequence[Json], bench: str) -> Iterator[Json]:
    return (record for record in records if record["bench"] == bench)


def _hardware(record: Json) -> str:
    device, versions = record["settings"].get("device", {}), record["versions"]
    parts = [str(device.get("name", record["machine"]["cpu"]))]
    parts += [f"{device['memory_gb']} GB"] if "memory_gb" in device else []
    parts += [f"CUDA {device['cuda']}"] if device.get("cuda") else []
    parts += [
        f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "onnxruntime-gpu") if name in versions
    ]
    parts += [f"triton {device['triton']}"] if device.get("triton") else []
    return (
        f"{', '.join(parts)}; beside it {record['machine']['cpus']} cores of {record['machine']['cpu']}; "
        + (f"{record['date']}, medians of {record['rounds']} rounds.")
    )


def _ceilings(record: Json) -> list[str]:
    lines = ["| ceiling | numbers | rate |", "| --- | --- | --- |"]
    for row in record["rows"]:
        ((unit, (rate, *_)),) = row["figures"].items()
        of = row["of"]
        lines.append(
            f"| {of['ceiling']} | {of.get('numbers', '')} | {rate:,.4g} {unit.replace('_per_s', '/s')} |"
        )
    return [*lines, ""]


def _parity(record: Json) -> list[str]:
    settings = record["settings"]
    lines = [
        f"Against {settings['reference']} on {settings['tiles']} tiles in batches of "
        f"{settings['batch_size']}: one minus the least cosine, the share of tokens with a cosine under "
        "0.999, the largest error and the largest difference between a tile alone and in its batch, as "
        "shares of the largest value.",
        "",
        "| | " + " | ".join(_PARITY.values()) + " |",
        "| --- |" + " ---: |" * len(_PARITY),
    ]
    for row in record["rows"]:
        values = " | ".join(f"{row['figures'][name][0]:.2g}" for name in _PARITY)
        lines.append(f"| {row['of']['contender']} | {values} |")
    return [*lines, ""]


def _throughput(records: Sequence[Json]) -> list[str]:
    """Tiles/s, in brackets those with transfers; below them multiples of the baseline at the same batch."""
    ordered = sorted(records, key=lambda record: int(record["settings"]["batch_size"]))
    sizes = sorted({record["settings"]["batch_size"] for record in ordered})
    cells: dict[str, dict[int, str]] = {}
    for record in ordered:
        for row in record["rows"]:
            figures = {name: values[0] for name, values in row["figures"].items()}
            times = f" {figures['times_loop']:.3g}x" if "times_loop" in figures else ""
            cells.setdefault(row["of"]["contender"], {})[record["settings"]["batch_size"]] = (
                f"{figures['tiles_per_s']:,.0f} ({figures['tiles_per_s_with_transfers']:,.0f}){times}"
            )
    return [
        "Tiles/s with inputs in device memory, in brackets with transfers from and to pinned host memory "
        "(one stream, nothing overlapped), and multiples of the loop at the same batch size:",
        "",
        "| batch | " + " | ".join(map(str, sizes)) + " |",
        "| --- |" + " ---: |" * len(sizes),
        *(
            f"| {name} | " + " | ".join(found.get(size, "") for size in sizes) + " |"
            for name, found in cells.items()
        ),
        "",
    ]
