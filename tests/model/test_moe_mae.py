"""The network against the published implementation, and what must hold of any such network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import SIZES, ConfigError, ModelConfig
from model.layers import NoisyTopKGate, SharedSwiGLUExperts
from model.moe_mae import MoEMAE, pooled
from model.outputs import POOLINGS, shapes
from model.published import import_reference, read_config

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 2e-5  # of the largest reference value

SMALL = ModelConfig(
    embed_dim=16, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2,
    image_size=8, patch_size=4, decoder_dim=12, decoder_hidden=6,
)  # fmt: skip


@pytest.fixture(params=["tiny", "XXS"], scope="module")
def golden(request: pytest.FixtureRequest) -> tuple[MoEMAE, dict[str, np.ndarray]]:
    folder = GOLDEN if request.param == "tiny" else request.getfixturevalue("shared") / "golden"
    stem = folder / f"reference_{request.param}"
    checkpoint = import_reference(stem.with_suffix(".pth"), read_config(stem.with_suffix(".json")))
    with np.load(stem.with_suffix(".npz")) as file:
        return checkpoint.model, dict(file)


def close(actual: torch.Tensor, reference: np.ndarray) -> None:
    difference = np.abs(actual.numpy() - reference).max()
    assert difference <= TOLERANCE * np.abs(reference).max()


@torch.inference_mode()
def test_encoder_gives_the_published_tokens(golden: tuple[MoEMAE, dict[str, np.ndarray]]) -> None:
    model, reference = golden
    z = model.encoder.standardise(torch.from_numpy(reference["dn"].astype(np.int32)))
    metadata = torch.from_numpy(reference["metadata"])
    encoded = model.encoder(z, metadata)
    close(encoded.tokens, reference["tokens"])
    close(encoded.normalised, reference["tokens_norm"])
    close(encoded.auxiliary_loss, reference["encoder_moe_loss"])
    close(model.encoder(z, torch.zeros_like(metadata)).tokens, reference["tokens_without_metadata"])


@torch.inference_mode()
def test_autoencoder_gives_the_published_reconstruction(golden: tuple[MoEMAE, dict[str, np.ndarray]]) -> None:
    model, reference = golden
    dn = torch.from_numpy(reference["dn"].astype(np.int32))
    result = model(dn, torch.from_numpy(reference["metadata"]), torch.from_numpy(reference["mask_noise"]))
    np.testing.assert_array_equal(result.mask.numpy(), reference["mask"])
    close(result.predicted, reference["reconstruction"])
    close(result.auxiliary_loss, reference["moe_loss"])


@pytest.mark.parametrize(
    ("size", "encoder", "whole"),
    [("S", 2_366_798, 2_537_562), ("XS", 1_209_996, 1_379_032), ("XXS", 657_817, 824_693)],
)
def test_parameter_counts_are_the_published_ones(size: str, encoder: int, whole: int) -> None:
    model = MoEMAE(SIZES[size])
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.parameters()) == whole


def test_hidden_dims_and_experts_of_size_s() -> None:
    dims = (144, 138, 133, 128, 123, 118, 113, 108, 102, 97, 92, 87, 82, 77, 72)
    assert SIZES["S"].hidden_dims == dims
    assert SIZES["S"].num_experts == (3,) * 5 + (4,) * 5 + (5,) * 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embed_dim": 10}, "num_heads"),
        ({"num_groups": 3}, "num_groups"),
        ({"image_size": 41}, "patch_size"),
        ({"depth": 2}, "depth is 2"),
        ({"top_k": 3}, "top_k is 3"),
        ({"first_hidden": 0}, "first_hidden is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ModelConfig.from_dict({**SMALL.to_dict(), **change})


def test_config_survives_json_and_names_what_is_wrong() -> None:
    assert ModelConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(ConfigError, match=r"missing \['depth'\], unknown \['layers'\]"):
        ModelConfig.from_dict({"layers": 3} | {k: v for k, v in SMALL.to_dict().items() if k != "depth"})


def batch(tiles: int) -> tuple[torch.Tensor, torch.Tensor]:
    dn = torch.randint(1, 65536, (tiles, 7, SMALL.image_size, SMALL.image_size), dtype=torch.int32)
    return dn, torch.randn(tiles, 4, 2)


def test_poolings_are_those_of_the_contract() -> None:
    tokens = torch.randn(2, SIZES["S"].num_tokens, SIZES["S"].embed_dim)
    x = tokens.numpy()
    expected = {
        "mean": x.mean(1),
        "cls": x[:, 4],
        "patch_mean": x[:, 5:].mean(1),
        "patch_mean_std": np.concatenate([x[:, 5:].mean(1), x[:, 5:].std(1)], 1),
        "tokens": x,
    }
    for p in POOLINGS:
        found = pooled(tokens, p).numpy()
        assert found.shape[1:] == shapes(SIZES["S"])[p]
        np.testing.assert_allclose(found, expected[p], atol=1e-6, err_msg=p)


def test_noise_is_added_in_training_only() -> None:
    torch.manual_seed(0)
    model = MoEMAE(SMALL)
    dn, metadata = batch(2)
    noise = torch.rand(2, SMALL.num_patches)
    model.eval()
    first, second = (model(dn, metadata, noise).predicted for _ in range(2))
    assert torch.equal(first, second)
    for module in model.modules():  # dropout off: what differs now is the gates' noise
        if not isinstance(module, torch.nn.Dropout):
            module.training = True
    first, second = (model(dn, metadata, noise).predicted for _ in range(2))
    assert not torch.equal(first, second)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = MoEMAE(SMALL).train()
    result = model(*batch(4))
    (result.predicted.square().sum() + result.auxiliary_loss).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert untouched == []


@pytest.mark.parametrize("hidden", [75, 80, 90])
def test_masking_hides_the_share_and_only_the_largest_noise(hidden: int) -> None:
    model = MoEMAE(SIZES["XXS"]).eval()
    noise = torch.rand(2, 100)
    with torch.inference_mode():
        mask = model(torch.full((2, 7, 40, 40), 9000), torch.zeros(2, 4, 2), noise, hidden / 100).mask
    assert mask.sum(1).tolist() == [hidden, hidden]
    for tile in range(2):
        assert noise[tile][mask[tile] == 0].max() < noise[tile][mask[tile] == 1].min()


def test_hidden_patches_do_not_reach_the_encoder() -> None:
    torch.manual_seed(0)
    model = MoEMAE(SMALL).eval()
    dn, metadata = batch(1)
    noise = torch.arange(SMALL.num_patches).float().unsqueeze(0)  # the first patch alone is visible
    changed = dn.clone()
    changed[..., 4:, 4:] = 1
    with torch.inference_mode():
        assert torch.equal(model(dn, metadata, noise).predicted, model(changed, metadata, noise).predicted)


def test_dense_experts_equal_the_weighted_sum_of_single_experts() -> None:
    torch.manual_seed(0)
    gate, experts = NoisyTopKGate(16, 4, 2).eval(), SharedSwiGLUExperts(16, 6, 4, dropout=0.0)
    x = torch.randn(2, 5, 16)
    gates = gate(x).gates
    assert (gates > 0).sum(-1).unique().tolist() == [2]
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 5))
    expected = torch.zeros_like(x)
    for e in range(4):
        W, b = experts.W.weight[e * 6 : (e + 1) * 6], experts.W.bias[e * 6 : (e + 1) * 6]
        one = experts.W2(torch.nn.functional.silu(x @ W.T + b) * experts.V(x))
        expected += gates[..., e : e + 1] * one
    torch.testing.assert_close(experts(x, gates), expected)


@pytest.mark.parametrize("shape", [(1, 6, 8, 8), (1, 7, 8, 12)])
def test_tiles_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 7, 8, 8\]"):
        MoEMAE(SMALL).encoder(torch.zeros(shape), torch.zeros(1, 4, 2))
