"""Devices and precisions that a machine does not have are named."""

from __future__ import annotations

import pytest
import torch

from training.devices import fabric_for
from training.recipe import RunConfig
from training.settings import SettingsError

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a CUDA device")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        pytest.param({"precision": "16"}, "run.precision is 16, which needs a CUDA device", marks=no_cuda),
        pytest.param({"accelerator": "cuda"}, "run.accelerator=cuda, run.devices=auto", marks=no_cuda),
        ({"accelerator": "cpu", "devices": 0}, "run.accelerator=cpu, run.devices=0, run.nodes=1: "),
    ],
)
def test_what_is_not_there_is_named(run: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fabric_for(RunConfig.model_validate(run))
