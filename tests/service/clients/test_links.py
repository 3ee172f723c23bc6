"""URLs as the client handles them: what is shown of them, and which hosts they are at."""

from __future__ import annotations

import pytest

from service.clients.links import hosts, without_query


@pytest.mark.parametrize(
    "link",
    ["https://me:secret@x.org/a.tif", "https://x.org/a.tif?sig=secret@y", "https://x.org/a.tif#secret@y"],
)
def test_nothing_secret_is_shown(link: str) -> None:
    assert without_query(link) == "https://x.org/a.tif"


def test_hosts_are_listed_as_the_setting_has_them() -> None:
    given = [
        "https://B.org/x",
        "HTTP://a.org:8080/",
        "https://b.org:443/",
        "http://my_host/",
        "https://bücher.org/",
    ]
    assert hosts(given) == "http://a.org:8080,http://my_host,https://b.org,https://xn--bcher-kva.org"


def test_no_url_allows_more_than_its_own_host() -> None:
    for link in ("https://*.example.org/", "https://a.org,*.example.org/", "https://[x", "https://[::1]/"):
        assert hosts([link]) == ""
