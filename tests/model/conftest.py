"""What the tests of the network share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.model import written_bundle


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The networks are tiny: more threads only wait for one another, most of all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a bundle that a test may change."""
    return written_bundle.write(tmp_path / "bundle").path
