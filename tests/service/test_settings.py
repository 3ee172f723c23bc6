"""Settings from the environment."""

from __future__ import annotations

import pytest

from service.settings import misspelt
from tests.service.server_process import ServerProcess


def test_what_looks_like_a_setting_and_is_none_is_found() -> None:
    names = ["LANDMOE_MAX_TILE", "LANDMOE_CACHE_MBS", "LANDMOE_API_KEY", "LANDMOE_MAX_TILES", "MAX_TILE"]
    assert misspelt(names) == {
        "LANDMOE_MAX_TILE": "LANDMOE_MAX_TILES",
        "LANDMOE_CACHE_MBS": "LANDMOE_CACHE_MB",
        "LANDMOE_API_KEY": "LANDMOE_API_KEYS",
    }


def test_what_orchestrators_set_is_none_of_ours() -> None:
    assert not misspelt(
        [
            "LANDMOE_PORT",
            "LANDMOE_SERVICE_HOST",
            "LANDMOE_PORT_8000_TCP_ADDR",
            "LANDMOE_IMAGE",
            "LANDMOE_VERSION",
        ]
    )


@pytest.mark.server
def test_the_log_says_so() -> None:
    with ServerProcess(LANDMOE_MAX_TILE="3") as server:
        [line] = [line for line in server.lines if line["event"] == "no such setting"]
    assert (line["variable"], line["did_you_mean"]) == ("LANDMOE_MAX_TILE", "LANDMOE_MAX_TILES")
