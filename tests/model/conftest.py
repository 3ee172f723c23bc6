"""What the tests of the network share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The networks are tiny: more threads only wait for one another, most of all on a busy machine."""
    torch.set_num_threads(1)
