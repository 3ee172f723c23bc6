"""What every test may ask for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. The rest is Hypothesis' own choice.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SHARED = Path(__file__).resolve().parents[2] / "shared"

pytest.register_assert_rewrite("tests.service.rasters.compared_readers")  # its asserts say what differs


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real imagery and golden files beside the checkout; the test is skipped without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"needs real imagery and golden files in {SHARED.parent.name}/shared, which is not there")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses tests of the same name: where several processes run them, only one of these would run."""
    repeated = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if repeated:
        raise pytest.UsageError(f"several tests are named {', '.join(repeated[:5])}")
