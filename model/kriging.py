"""The best linear guess of a tile from its visible patches: universal kriging of block means.

A linear variogram with a linear trend (Matheron 1969), which is the radial basis function -r with a plane.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of a block without a measured pixel, in the unit of the variogram (tile sides): it counts for nothing.
NOTHING = 1e6
# Of a measured one: pixels differ from their neighbours by more than the variogram says (noise, edges).
NUGGET = 0.003


def kriged(patches: Tensor, seen: Tensor, visible: Tensor, bands: int) -> Tensor:
    """All pixels, guessed from the seen ones of the visible patches, by tile and band.

    What is known are means of blocks, four to a patch (one where its side is odd). Of pixels as they
    are, the linear system would be four times as wide, for a guess that is a tenth better.

    Args:
        patches: [B, L, C * p * p] float32, L patches in rows of a square; order inside: band, row, column.
        seen: [B, L, p * p] bool, pixels of visible patches that hold a measurement.
        visible: [B, K] int64, numbers of the visible patches.
        bands: C.

    Returns:
        [B, L, C * p * p] float32; 0 everywhere if no pixel is seen.
    """
    B, L, _ = patches.shape
    side = round((patches.shape[-1] // bands) ** 0.5)
    parts = block_parts(side)
    width = side // parts
    index = visible.unsqueeze(-1)
    values = patches.gather(1, index.expand(-1, -1, patches.shape[-1]))
    counted = seen.gather(1, index.expand(-1, -1, side * side))
    values = values.view(B, -1, bands, parts, width, parts, width).transpose(4, 5).flatten(5)
    counted = counted.view(B, -1, 1, parts, width, parts, width).transpose(4, 5).flatten(5)
    number = counted.sum(-1)  # [B, K, 1, parts, parts]
    means = torch.where(counted, values, 0.0).sum(-1) / number.clamp_min(1)  # [B, K, C, parts, parts]
    known = means.flatten(3).transpose(2, 3).flatten(1, 2)  # [B, n, C]
    empty = (number == 0).flatten(1)  # [B, n]

    pixels = _centres(L, side).to(patches)  # [L, p * p, 2]
    blocks = _centres(L, parts).to(patches)[visible].flatten(1, 2)  # [B, n, 2]
    n = blocks.shape[1]
    system = patches.new_zeros(B, n + 3, n + 3)
    system[:, :n, :n] = -torch.cdist(blocks, blocks)
    system[:, :n, n:] = plane = torch.nn.functional.pad(blocks, (1, 0), value=1.0)
    system[:, n:, :n] = plane.transpose(1, 2)
    system[:, :n, :n].diagonal(dim1=1, dim2=2).add_(torch.where(empty, NOTHING, NUGGET))
    with torch.autocast(patches.device.type, enabled=False):
        weights = torch.linalg.solve(system, torch.nn.functional.pad(known, (0, 0, 0, 3)))  # [B, n + 3, C]
        everywhere = pixels.flatten(0, 1).expand(B, -1, -1)
        guess = -torch.cdist(everywhere, blocks) @ weights[:, :n]
        guess += torch.nn.functional.pad(everywhere, (1, 0), value=1.0) @ weights[:, n:]
    out: Tensor = guess.view(B, L, side * side, bands).transpose(2, 3).flatten(2)
    return out


def block_parts(side: int) -> int:
    """Blocks along the side of a patch of `side` px."""
    return 2 if side % 2 == 0 else 1


def _centres(patches: int, parts: int) -> Tensor:
    """Centres of `parts` x `parts` blocks of every patch, [L, parts², 2]: row and column in tile sides."""
    grid = round(patches**0.5)
    along = (torch.arange(grid * parts) + 0.5) / (grid * parts)
    both = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1)
    both = both.view(grid, parts, grid, parts, 2).transpose(1, 2)
    return both.reshape(patches, parts * parts, 2)
