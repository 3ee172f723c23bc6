"""From where the service fetches, and from nowhere else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RequestError
from service.http.allowed_hosts import AllowedHosts
from service.settings import SettingsError, load

ALLOWED = "data.example.org, *.cloud.example.net, http://plain.example.org:8080, 10.0.0.7:8443"


@pytest.mark.parametrize(
    "url",
    [
        "https://data.example.org/a.tif",
        "HTTPS://DATA.Example.ORG:443/a.tif?sig=1",
        "https://a.cloud.example.net/",
        "https://a.b.cloud.example.net/x",
        "http://plain.example.org:8080/a.tif",
        "https://10.0.0.7:8443/a.tif",
    ],
)
def test_what_is_listed_may_be_asked(url: str) -> None:
    assert AllowedHosts(ALLOWED).check(url).scheme in ("http", "https")


@pytest.mark.parametrize(
    "url",
    [
        "http://data.example.org/a.tif",  # not encrypted
        "https://data.example.org:8443/a.tif",
        "https://data.example.org:0/a.tif",
        "https://example.org/a.tif",
        "https://evildata.example.org/a.tif",
        "https://data.example.org.evil.com/a.tif",
        "https://cloud.example.net/",  # not below it
        "https://evilcloud.example.net/",
        "https://plain.example.org:8080/",
        "https://10.0.0.7/",
        "https://167772167:8443/",  # the same address in one number
        "https://0x0a.0.0.7:8443/",
        "https://[::ffff:10.0.0.7]:8443/",
        "https://169.254.169.254/latest/meta-data/",
        "https://data.example.org\\@evil.com/",
        "https://evil.com#@data.example.org/",
        "https://evil.com?@data.example.org/",
        "https://data。example。org.evil.com/",
        "https://xn--a.cloud.example.net/",  # no name of IDNA
        "file:///etc/passwd",
        "ftp://data.example.org/a.tif",
        "//data.example.org/a.tif",
        "data.example.org/a.tif",
        "",
    ],
)
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        AllowedHosts(ALLOWED).check(url)
    assert caught.value.code in ("fetch-not-allowed", "bad-parameter")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@data.example.org/a.tif",
        "https://data.example.org/" + "secret" * 1000,
        "https://data.example.org:99999999/?secret",
        "https://[/?secret",
        "https://data.exa mple.org/?secret",
        "https://data.example.com/?secret",
    ],
)
def test_refusals_do_not_repeat_what_may_be_a_secret(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        AllowedHosts(ALLOWED).check(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_whatever_stands_in_a_url_is_refused_or_at_a_host_that_is_listed(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}@data.example.org/", f"https://x/{text}"):
        with contextlib.suppress(RequestError):
            found = AllowedHosts(ALLOWED).check(url)
            assert found.host == "data.example.org" or found.host.endswith(".cloud.example.net")


def test_without_hosts_nothing_is_fetched() -> None:
    for hosts in (None, "", " , "):
        assert not AllowedHosts(hosts)
        with pytest.raises(RequestError, match="LANDMOE_FETCH_HOSTS"):
            AllowedHosts(hosts).check("https://data.example.org/")


@pytest.mark.parametrize(
    "hosts", ["*", "*.org", "https://a.org/path", "a b", "ftp://a.org", "*.*.a.org", "a.org:x", "a.org:70000"]
)
def test_settings_that_name_no_host_are_refused(hosts: str) -> None:
    with pytest.raises(SettingsError, match="LANDMOE_FETCH_HOSTS"):
        load(fetch_hosts=hosts)
