"""Put a model card and the result of an evaluation into a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model import bundle as bundles
from model import bundle_writer
from model.bundle import Bundle, BundleError
from training.findings import findings


def describe(path: Path, *, card: Path | None = None, evaluation: Path | None = None) -> Bundle:
    """Write the bundle anew with them; its weights and probes stay as they are.

    Args:
        path: the bundle.
        card: Markdown, in place of the bundle's card.
        evaluation: `evaluation.json` of `landmoe-train evaluate`; its findings become metrics.

    Raises:
        BundleError: nothing is given, no bundle there, a file that cannot be read, or an evaluation of
            another network.
    """
    if card is None and evaluation is None:
        raise BundleError("nothing to put into the bundle; give --card, --evaluation or both")
    old = bundles.load(path)
    return bundle_writer.rewrite(
        old,
        metrics=None if evaluation is None else {**old.metrics, "evaluation": _evaluation(evaluation, old)},
        card=None if card is None else _text(card),
    )


def _evaluation(path: Path, bundle: Bundle) -> dict[str, Any]:
    """What was measured; what only a checkpoint's evaluation has stays from one before."""
    return {**bundle.metrics.get("evaluation", {}), **_read(path, bundle)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read as text ({error})") from error


def _read(path: Path, bundle: Bundle) -> dict[str, Any]:
    text = _text(path)
    try:
        result = json.loads(text)
        found = result["checkpoint"]["config"], result["checkpoint"]["info"].get("step")
        summary = findings(result)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: not the evaluation.json that `evaluate` writes ({error!r})") from error
    if found != (bundle.config.to_dict(), bundle.training.get("step")):
        raise BundleError(
            f"{path} is of another network than {bundle.path}: step {found[1]}, "
            f"expected {bundle.training.get('step')} and the same configuration"
        )
    return summary
