"""Settings from the environment."""

from __future__ import annotations

import pytest

from service.settings import Settings, SettingsError, load, misspelt
from tests.service.server_process import ServerProcess

_NUMBERS = (int, float, int | None)


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


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("name", ["max_upload_mb", "cache_mb", "request_timeout_s", "max_request_timeout_s"])
def test_what_is_no_finite_number_is_refused(name: str, value: str) -> None:
    """Some failed each request, and others the start, with a traceback."""
    with pytest.raises(SettingsError, match=f"LANDMOE_{name.upper()} is '{value}'"):
        load(**{name: value})


@pytest.mark.parametrize(
    "name", [n for n, field in Settings.model_fields.items() if field.annotation in _NUMBERS]
)
def test_more_than_anyone_can_mean_is_refused(name: str) -> None:
    """1e305 MB ended the start with a traceback, and an allowed timeout of 1e307 s each request."""
    with pytest.raises(SettingsError, match=f"LANDMOE_{name.upper()} is '1{'0' * 305}'"):
        load(**{name: "1" + "0" * 305})


def test_a_grace_that_no_timer_can_wait_for_is_refused() -> None:
    with pytest.raises(SettingsError, match="LANDMOE_SHUTDOWN_GRACE_S"):
        load(shutdown_grace_s=10**12)


@pytest.mark.parametrize(
    "origins",
    [
        "example.org",
        "https://example.org/",
        "https://a.example, https://Example.org",
        "https://*.example.org",
    ],
)
def test_what_no_browser_sends_as_its_origin_is_refused(origins: str) -> None:
    with pytest.raises(SettingsError, match=r"LANDMOE_CORS_ORIGINS .* is no origin"):
        load(cors_origins=origins)


@pytest.mark.parametrize(
    "origins", ["*", "null", "https://a.example, http://localhost:3000,", "http://[::1]:80"]
)
def test_origins_are_taken(origins: str) -> None:
    assert load(cors_origins=origins).cors_origins == origins
