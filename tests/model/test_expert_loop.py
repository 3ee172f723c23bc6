from __future__ import annotations

import copy

import pytest
import torch

from model.config import ModelConfig
from model.expert_loop import LoopedExperts, with_looped_experts
from model.layers import NoisyTopKGate, SharedSwiGLUExperts
from model.moe_mae import MoEMAE

CONFIG = ModelConfig(
    embed_dim=24, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2, dropout=0.0,
    image_size=16, decoder_dim=12, decoder_hidden=6,
)  # fmt: skip


@pytest.mark.parametrize("experts", [3, 5])
def test_dense_experts_equal_the_loop_in_outputs_and_gradients(experts: int) -> None:
    torch.manual_seed(0)
    dense = SharedSwiGLUExperts(24, 10, experts, 0.0).double()
    looped = LoopedExperts(copy.deepcopy(dense))
    gate = NoisyTopKGate(24, experts, 2)
    results = []
    for module in (dense, looped):
        x = torch.linspace(-2, 2, 4 * 30 * 24, dtype=torch.float64).sin().view(4, 30, 24).requires_grad_()
        torch.manual_seed(1)
        gates = gate(x.detach().float()).gates.detach().double()
        out = module(x, gates / gates.sum(-1, keepdim=True))
        (out * torch.linspace(0, 1, 24, dtype=torch.float64)).sum().backward()
        parameters = dense if module is dense else looped.fused
        results.append((out, x.grad, *(p.grad for p in parameters.parameters())))
    for a, b in zip(*results, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_whole_training_step_is_the_same() -> None:
    torch.manual_seed(0)
    dense = MoEMAE(CONFIG).train()
    looped = with_looped_experts(copy.deepcopy(dense))
    dn, encodings = torch.randint(5_000, 20_000, (6, 7, 16, 16)), torch.randn(6, 4, 2)
    gradients = []
    for model in (dense, looped):
        torch.manual_seed(5)  # the same masks and gate noise
        result = model(dn, encodings)
        loss = (result.predicted - result.target).square().mean() + result.auxiliary_loss
        loss.backward()
        named = {n.replace("experts.fused.", "experts."): p.grad for n, p in model.named_parameters()}
        gradients.append((loss.detach(), named))
    (loss_a, a), (loss_b, b) = gradients
    torch.testing.assert_close(loss_a, loss_b, rtol=1e-5, atol=0)
    assert a.keys() == b.keys()
    scale = max(float(g.abs().max()) for g in a.values() if g is not None)
    for name, gradient in a.items():
        torch.testing.assert_close(gradient, b[name], rtol=1e-3, atol=1e-5 * scale, msg=name)
