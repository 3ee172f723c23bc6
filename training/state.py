"""What a run needs to go on exactly where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FORMAT_VERSION = 1


class StateError(Exception):
    """A saved state that cannot be resumed from, and why."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and text, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    torch.save({"format": FORMAT_VERSION, **state}, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a state without executing anything in it.

    Raises:
        StateError: no such file, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StateError(f"{path}: no such file") from None
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise StateError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT_VERSION:
        raise StateError(f"{path}: not a state of this release (format {FORMAT_VERSION})")
    return state


def check_same(saved: dict[str, Any], current: dict[str, Any], path: Path) -> None:
    """Refuse to go on with a configuration under which the rest of the run would differ.

    Raises:
        StateError: naming the keys that changed, with both values.
    """
    changed = [
        f"{key}: {saved.get(key)!r} in the state, {current.get(key)!r} now"
        for key in sorted(saved.keys() | current.keys())
        if saved.get(key) != current.get(key)
    ]
    if changed:
        raise StateError(
            f"{path} was saved with another configuration ({'; '.join(changed)}); "
            "start a new run folder, or go on with the old values"
        )
