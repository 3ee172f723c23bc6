"""How near each contender is to the exact network, on the device that it runs on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import CLS_TOKEN
from model.deviation import cosine
from model.measurement import Figures
from training.gpu_contenders import Prepare
from training.gpu_tiles import Tiles


def exact(prepare: Prepare, tiles: Tiles, device: torch.device, batch_size: int) -> NDArray[np.float32]:
    """Tokens of all tiles."""
    return _tokens(prepare, tiles, device, batch_size)


def against(
    reference: NDArray[np.float32], prepare: Prepare, tiles: Tiles, device: torch.device, batch_size: int
) -> Figures:
    """One minus the least cosine of all tiles, the largest error, and what a tile's batch does to it.

    Args:
        reference: tokens of all tiles, from `exact`.
        prepare: the contender.
        tiles: pixels and encodings.
        device: where it runs.
        batch_size: tiles in a batch; the first tiles are also run alone.
    """
    tokens = _tokens(prepare, tiles, device, batch_size)
    alone = _tokens(prepare, (tiles[0][:4], tiles[1][:4]), device, 1)
    largest = float(np.abs(reference).max())
    return {
        "cosine_loss_mean": float(1 - cosine(tokens.mean(axis=1), reference.mean(axis=1)).min()),
        "cosine_loss_cls": float(1 - cosine(tokens[:, CLS_TOKEN], reference[:, CLS_TOKEN]).min()),
        "cosine_loss_token": float(1 - cosine(tokens, reference).min()),
        "moved_tokens": float((cosine(tokens, reference) < 0.999).mean()),  # another expert, most likely
        "max_relative_error": float(np.abs(tokens - reference).max()) / largest,
        "alone_against_batch": float(np.abs(alone - tokens[: len(alone)]).max()) / largest,
    }


def all_against(
    reference: NDArray[np.float32],
    contenders: Mapping[str, Prepare],
    tiles: Tiles,
    device: torch.device,
    batch_size: int,
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Figures by contender, and why those that failed did."""
    found, failed = {}, {}
    for name, prepare in contenders.items():
        try:
            found[name] = against(reference, prepare, tiles, device, batch_size)
        except Exception as error:  # out of memory, no compiler, an operator that the device lacks
            failed[name] = first_line(error)
    return found, failed


def first_line(error: Exception) -> str:
    """What an exception says, without its trace."""
    return f"{type(error).__name__}: {str(error).strip()}".split("\n", 1)[0][:300]


def _tokens(prepare: Prepare, tiles: Tiles, device: torch.device, batch_size: int) -> NDArray[np.float32]:
    """In batches of one size, the last filled up, as a recorded graph wants it."""
    dn, metadata = (torch.from_numpy(np.ascontiguousarray(part)) for part in tiles)
    size = min(batch_size, len(dn))
    places = [part[:size].to(device, copy=True) for part in (dn, metadata)]
    parts = []
    with torch.inference_mode():
        run = prepare(*places)
        for start in range(0, len(dn), size):
            rows = slice(max(0, min(start, len(dn) - size)), None)
            for place, values in zip(places, (dn[rows][:size], metadata[rows][:size]), strict=True):
                place.copy_(values)
            parts.append(run()[1][start - rows.start :].to("cpu", copy=True).numpy())
    joined: NDArray[np.float32] = np.concatenate(parts)
    return joined
