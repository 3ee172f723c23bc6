"""Devices and precision of a run (Lightning Fabric)."""

from __future__ import annotations

from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.utilities.exceptions import MisconfigurationException

from training.recipe import RunConfig
from training.settings import SettingsError


def fabric_for(run: RunConfig) -> tuple[Fabric, torch.amp.GradScaler | None]:
    """The engine, and the loss scaler where the precision is fp16 (its state belongs to the run's).

    Raises:
        SettingsError: devices that this machine does not have, or fp16 without a CUDA device.
    """
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    cuda = torch.cuda.is_available() and run.accelerator in ("auto", "cuda")
    precision = run.precision
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "16") if cuda else "32"
    if precision == "16" and not cuda:
        raise SettingsError("run.precision is 16, which needs a CUDA device; expected 32 or bf16 here")
    # On CPU one process uses all cores; several would only share them.
    devices = 1 if not cuda and run.devices == "auto" else run.devices
    scaler = torch.amp.GradScaler("cuda") if precision == "16" else None
    kind: Literal["16-mixed", "bf16-mixed"] = "16-mixed" if scaler else "bf16-mixed"
    mixed = None if precision == "32" else MixedPrecision(kind, "cuda" if cuda else "cpu", scaler)
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=devices, num_nodes=run.nodes, plugins=mixed)
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        asked = f"run.accelerator={run.accelerator}, run.devices={run.devices}, run.nodes={run.nodes}"
        raise SettingsError(f"{asked}: {error}") from error
    return fabric, scaler


def describe(fabric: Fabric) -> str:
    """Device and precision in words."""
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
    else:
        name = f"{fabric.device.type} with {torch.get_num_threads()} threads"
    return f"{fabric.world_size} x {name}, {fabric._precision.precision}"
