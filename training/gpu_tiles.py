"""Real tiles for a GPU bench: from a packed set, or from one `.npz` file, which is easily carried."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from model import parity, tiles
from model.config import NUM_METADATA_TOKENS, ModelConfig, Preprocessing

Tiles = tuple[NDArray[np.uint16], NDArray[np.float32]]
COUNT = 512  # enough for the rarest routing to occur, few enough for seconds of work


class TilesError(ValueError):
    """A file without tiles; says what was found."""


def load(path: Path | None, config: ModelConfig, preprocessing: Preprocessing, count: int = COUNT) -> Tiles:
    """Evenly spread tiles of a set, filled as the network was trained.

    Args:
        path: a packed set; or an `.npz` file with `dn` or `x`, uint16 (N, C, S, S), at least as large as
            the network's tiles, and optionally `metadata` float32 (N, 4, 2); None for made-up tiles.
        config: what the network takes.
        preprocessing: how invalid pixels are filled.
        count: of tiles at most.

    Raises:
        TilesError: another file, or a folder that is no packed set.
    """
    if path is None:
        batches = list(parity.batches(config))
        return np.concatenate([dn for dn, _ in batches]), np.concatenate([known for _, known in batches])
    dn, known = _file(path, config, count) if path.is_file() else _packed(path, count)
    valid = (dn != 0).all(axis=1)
    return tiles.fill(dn, valid, preprocessing.nodata_fill, preprocessing.mean), known


def _packed(path: Path, count: int) -> Tiles:
    # Imported here: packing needs packages that a machine with nothing but PyTorch may lack.
    from training.shards import PackError, open_packed

    try:
        packed = open_packed(path)
    except PackError as error:
        raise TilesError(str(error)) from error
    rows = _spread(packed.count, count)
    ends = np.cumsum([shard.count for shard in packed.shards])
    dn = [
        shard.column("pixels")[rows[(rows >= end - shard.count) & (rows < end)] - (end - shard.count)]
        for shard, end in zip(packed.shards, ends, strict=True)
    ]
    return np.concatenate(dn), packed.column("encodings")[rows]


def _file(path: Path, config: ModelConfig, count: int) -> Tiles:
    side, bands = config.image_size, config.in_channels
    if not is_zipfile(path):  # numpy says it in as many ways as there are other files
        raise TilesError(f"{path} is no .npz file, or is cut off")
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((name for name in ("dn", "x") if name in archive.files), None)
            if name is None:
                raise TilesError(f"{path} holds {', '.join(archive.files)}; expected dn or x")
            found = archive[name]
            encodings = archive["metadata"] if "metadata" in archive.files else None
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise TilesError(f"{path}: {error}") from error
    if found.dtype != np.uint16 or found.ndim != 4 or found.shape[1] != bands or min(found.shape[2:]) < side:
        raise TilesError(
            f"{path}: {name} is {found.dtype} {found.shape}; expected uint16 (N, {bands}, S, S), S >= {side}"
        )
    rows = _spread(len(found), count)
    top, left = ((length - side) // 2 for length in found.shape[2:])
    dn = np.ascontiguousarray(found[rows, :, top : top + side, left : left + side])
    unknown = np.zeros((len(dn), NUM_METADATA_TOKENS, 2), np.float32)
    return dn, unknown if encodings is None else encodings[rows].astype(np.float32)


def _spread(total: int, count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(np.int64))
