"""What may be given as LANDMOE_REDIS_URL, and what is said of the rest."""

from __future__ import annotations

import pytest

from service import settings
from service.caching import redis_url
from tests.service.server_process import run


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/15",
        "redis://user:p%2Fw@[::1]:6379",
        "rediss://redis.example:6380/0?ssl_cert_reqs=none",
        "redis://localhost?db=3&socket_timeout=0.5",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_good_urls(url: str) -> None:
    redis_url.check(url)
    assert settings.load(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "does not begin with redis://"),
        ("http://localhost", "does not begin with redis://"),
        ("redis://", "no host"),
        ("redis://localhost:0", "port is 0"),
        ("redis://localhost:70000", "cannot be read"),
        ("redis://:secret/word@localhost", "percent-encode"),
        ("redis://localhost/abc", "not a number"),
        ("redis://localhost?colour=red", "colour"),
        ("redis://localhost?db=red", "db"),
        ("unix://", "no path"),
    ],
)
def test_bad_urls_are_refused_without_being_repeated(url: str, reason: str) -> None:
    with pytest.raises(settings.SettingsError, match=reason) as error:
        settings.load(redis_url=url)
    message = str(error.value)
    assert message.startswith("LANDMOE_REDIS_URL cannot be used: ")
    assert "expected redis://" in message
    assert "secret" not in message
    assert "\n" not in message


def test_the_url_is_not_shown_with_the_settings() -> None:
    assert "secret" not in repr(settings.load(redis_url="redis://:secret@localhost"))


@pytest.mark.server
def test_a_bad_url_stops_the_start_with_one_line() -> None:
    done = run("serve", "--port", "0", LANDMOE_REDIS_URL="redis//:secret@localhost")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "LANDMOE_REDIS_URL" in done.stderr
    assert "secret" not in done.stderr
