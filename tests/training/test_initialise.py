from __future__ import annotations

import torch

from model.config import NUM_EXTRA_TOKENS, ModelConfig
from model.moe_mae import MoEMAE
from training.initialise import grid_waves, start_positions_as_waves


def test_neighbours_are_alike_and_no_two_places_are_the_same() -> None:
    waves = grid_waves(10, 144)
    likeness = (waves @ waves.T).view(10, 10, 10, 10)
    at = likeness[4, 4]
    assert at[4, 4] > at[4, 5] > at[4, 7] > at[4, 9]
    assert torch.allclose(at, at.T, atol=1e-4)  # rows and columns count alike
    distances = torch.cdist(waves, waves) + torch.eye(100) * 1e9
    assert distances.min() > 0.5


def test_rows_and_columns_are_those_of_the_patches() -> None:
    waves = grid_waves(10, 16).view(10, 10, 16)
    assert torch.equal(waves[3, :, :8], waves[3, :1, :8].expand(10, -1))  # first half: the row
    assert torch.equal(waves[:, 6, 8:], waves[:1, 6, 8:].expand(10, -1))  # second half: the column


def test_any_width_is_filled_with_zeros() -> None:
    waves = grid_waves(3, 10)
    assert waves.shape == (9, 10)
    assert not waves[:, 8:].any()


def test_only_the_positions_of_patches_change() -> None:
    config = ModelConfig(
        embed_dim=16, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2,
        image_size=8, decoder_dim=12, decoder_hidden=6,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MoEMAE(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    start_positions_as_waves(model)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"encoder.pos_embed", "decoder_pos_embed"}
    extra = slice(None), slice(NUM_EXTRA_TOKENS)
    assert torch.equal(model.encoder.pos_embed[extra], before["encoder.pos_embed"][extra])
    assert model.encoder.pos_embed.requires_grad
