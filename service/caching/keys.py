"""Keys of the cache: what a result depends on, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_SHOWN = 12  # characters of a digest that tell an operator which model keys are of


class Namespace:
    """Makes keys that no other model, arithmetic or rule of preparation shares.

    Args:
        encoder_digest: SHA-256 (hex) of the ONNX file that runs.
        arithmetic: what computes, since each rounds in its own way, see `service.engine.arithmetic`.
        preprocessing_version: of the rules that made the tile.
    """

    def __init__(self, encoder_digest: str, arithmetic: str, preprocessing_version: int) -> None:
        rest = f"{arithmetic}:{preprocessing_version}"
        self._whole = f"{encoder_digest}:{rest}"
        self._shown = f"{encoder_digest[:_SHOWN]}:{rest}"

    def key(self, tile: bytes, output: str) -> bytes:
        """The key of one output of one prepared tile: `landmoe:`, what people look for, and a SHA-256 of all.

        Args:
            tile: `tile_hash` of it.
            output: of the network, one of the poolings.
        """
        digest = hashlib.sha256(f"{self._whole}:{output}:".encode() + tile).hexdigest()
        return f"landmoe:{self._shown}:{output}:{digest}".encode()


def tile_hash(dn: NDArray[np.uint16], encoding: NDArray[np.float32]) -> bytes:
    """SHA-256 of everything that the network sees of a tile.

    A cryptographic hash, since a client who finds two tiles with one hash could make another's answer wrong.

    Args:
        dn: prepared pixels, uint16 (7, 40, 40), C-contiguous.
        encoding: metadata, float32 (4, 2), C-contiguous.
    """
    state = hashlib.sha256(np.ascontiguousarray(dn).data)
    state.update(np.ascontiguousarray(encoding).data)
    return state.digest()
