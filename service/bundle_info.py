"""What `landmoe info` tells of a bundle."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from model.bundle import Bundle


def as_dict(bundle: Bundle) -> dict[str, Any]:
    """Everything of a bundle, JSON-ready."""
    return {
        "path": str(bundle.path),
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "trained": bundle.trained,
        "precisions": list(bundle.precisions),
        "config": bundle.config.to_dict(),
        "preprocessing": bundle.preprocessing.to_dict(),
        "training": bundle.training,
        "metrics": bundle.metrics,
        "parity": bundle.parity,
        "probes": {
            name: {"task": probe.task, "pooling": probe.pooling, "labels": list(probe.labels)}
            for name in bundle.probe_names
            if (probe := bundle.probe(name))
        },
        "files": bundle.files,
        "card": bundle.card,
    }


def show(bundle: Bundle) -> None:
    """Prints a bundle for people."""
    console = Console()
    table = Table(title=f"{bundle.name} {bundle.version}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    config, preprocessing = bundle.config, bundle.preprocessing
    rows = {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "trained": "yes" if bundle.trained else "[red]no: its weights are random[/red]",
        "precisions": ", ".join(bundle.precisions),
        "embedding": f"{config.embed_dim} numbers",
        "tokens": f"{config.num_tokens} ({config.num_patches} patches of {config.patch_size} px)",
        "layers": f"{config.depth}, with {' '.join(map(str, config.num_experts))} experts",
        "tile": f"{config.in_channels} bands, {config.image_size} x {config.image_size} px",
        "nodata is fed": preprocessing.nodata_fill,
        "hour convention": preprocessing.hour_convention,
        "probes": ", ".join(bundle.probe_names) or "none",
        "missing metadata": "trained" if preprocessing.missing_metadata_trained else "not trained",
    }
    for group, values in (("training", bundle.training), ("metrics", bundle.metrics)):
        plain = {name: value for name, value in values.items() if not isinstance(value, dict | list)}
        rows |= {f"{group}: {name}": str(value) for name, value in plain.items()}
        if len(plain) < len(values):
            rows[f"{group}: more"] = f"{', '.join(sorted(values.keys() - plain))} with --json"
    rows |= {f"parity: {precision}": _parity(figures) for precision, figures in bundle.parity.items()}
    rows |= {f"SHA-256 {name}": sha256 for name, sha256 in bundle.files.items()}
    for name, value in rows.items():
        table.add_row(name, Text.from_markup(value) if name == "trained" else Text(value))
    console.print(table)
    console.print(Markdown(bundle.card))


def _parity(figures: Any) -> str:
    """One line of what the export measured; a foreign bundle's figures as they are."""
    try:
        return (
            f"within {figures['max_relative_error']:.1e} of the network's largest token "
            f"over {figures['tiles']} tiles (allowed {figures['tolerance']:g})"
        )
    except (KeyError, TypeError, ValueError):
        return str(figures)
