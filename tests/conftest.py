"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real imagery and golden files beside the checkout; the test is skipped without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"needs real imagery and golden files in {SHARED.parent.name}/shared, which is not there")
    return SHARED
