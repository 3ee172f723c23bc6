from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.schedule import Schedule, averaged


def test_cosine_warms_up_linearly_and_ends_at_zero() -> None:
    rates = [Schedule("cosine", 2.0, 100, 0.1, 0.25).at(s) for s in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(1 + math.cos(math.pi * 0.5))
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_constant_decays_at_the_end_only() -> None:
    rates = [Schedule("constant", 2.0, 100, 10, 0.2).at(s) for s in range(100)]
    assert set(rates[10:81]) == {2.0}
    assert rates[90] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)


def test_constant_can_be_lengthened_without_changing_what_was() -> None:
    short = Schedule("constant", 1.0, 100, 10, 0.2)
    assert [short.at(s) for s in range(80)] == [short.with_total(500).at(s) for s in range(80)]


def test_average_is_exponential_with_a_warm_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = averaged(model, 0.9)
    expected = None
    for n in range(60):
        with torch.no_grad():
            model.weight.fill_(float(n % 7))
        ema.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = float(n % 7) if expected is None else decay * expected + (1 - decay) * (n % 7)
    assert next(ema.module.parameters()).item() == pytest.approx(expected, rel=1e-5)
