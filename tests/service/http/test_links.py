"""Files that requests name by URL: what comes is as if uploaded, and what does not come fails alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from httpx import Response
from starlette.testclient import TestClient

from service import sample
from service.files import File, LinkedFile
from service.http.allowed_hosts import AllowedHosts
from service.http.fetch import Fetcher
from service.http.links import follow
from service.http.spool import Spool
from service.http.upload import Upload
from service.parameters import TileParameters
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.conftest import MakeClient
from tests.service.http.file_host import FileHost, file_host

TILE = geotiff(dn_pixels(seed=1))


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as host:
        host.files["a.tif"] = TILE
        host.files["folder/b c.tif"] = geotiff(dn_pixels(seed=2))
        yield host


@pytest.fixture
def client(make_client: MakeClient, host: FileHost) -> TestClient:
    return make_client(fetch_hosts=host.allowed, fetch_timeout_s=2, max_upload_mb=0.5, max_tiles=8)


def post(client: TestClient, parts: list[tuple[str, str | bytes]], **params: Any) -> Response:
    """Texts are links, bytes are files."""
    files = [
        (name, (None, content) if isinstance(content, str) else ("up.tif", content, "image/tiff"))
        for name, content in parts
    ]
    return client.post("/embed", files=files, params=params)


def test_a_linked_file_is_what_an_uploaded_one_is(client: TestClient, host: FileHost) -> None:
    linked = post(client, [("tile", host.url("folder/b%20c.tif?sig=secret#x"))])
    uploaded = post(client, [("tile", host.files["folder/b c.tif"])])
    assert linked.status_code == uploaded.status_code == 200
    ours, theirs = linked.json()["data"][0], uploaded.json()["data"][0]
    assert ours.pop("source") == "b c.tif"
    assert theirs.pop("source") == "up.tif"
    assert not ours.pop("cached")
    assert theirs.pop("cached")  # the bytes are known by what they are
    assert ours == theirs
    assert "fetch;dur=" in linked.headers["Server-Timing"]
    exposed = client.get("/metrics").text
    assert 'landmoe_stage_duration_seconds_count{stage="fetch"} 0.0' not in exposed
    assert 'landmoe_fetches_total{outcome="ok"} 0.0' not in exposed
    [(path, headers)] = host.asked
    assert path == "/folder/b%20c.tif?sig=secret"
    assert headers["accept-encoding"] == "identity"


def test_links_and_files_keep_their_order_and_fail_alone(client: TestClient, host: FileHost) -> None:
    answer = post(
        client,
        [
            ("tile", TILE),
            ("tile", host.url("missing.tif?sig=secret")),
            ("tile", host.url("folder/b%20c.tif")),
            ("tile", "https://example.org/x.tif"),
            ("tile", host.url("a.tif")),
            ("tile", host.url("a.tif")),
        ],
    )
    assert answer.status_code == 200
    items = answer.json()["data"]
    kinds = [item["error"]["type"].rpartition(":")[2] if "error" in item else "ok" for item in items]
    assert kinds == ["ok", "fetch-failed", "ok", "fetch-not-allowed", "ok", "ok"]
    assert items[0]["embedding"] == items[4]["embedding"] == items[5]["embedding"] != items[2]["embedding"]
    assert [item["source"] for item in items] == [
        "up.tif",
        "missing.tif",
        "b c.tif",
        "x.tif",
        "a.tif",
        "a.tif",
    ]
    assert "404" in items[1]["error"]["detail"]
    assert "secret" not in answer.text
    assert sum(path == "/a.tif" for path, _ in host.asked) == 1  # the same file is fetched once


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("missing.tif", 424, "404"),
        ("gzip", 424, "gzip"),
        ("cut", 424, "did not come"),
        ("no-http", 424, "did not come"),
        ("slow", 424, "within 2 s"),
        ("redirect?to=/redirect%3Fto%3D/a.tif", 200, ""),
        ("redirect?to=https://example.org/a.tif", 403, "https://example.org"),
        ("redirect?to=http://169.254.169.254/", 403, "169.254.169.254"),
        ("redirect?to=file:///etc/passwd", 403, "fetches nothing"),
        ("redirect?to=mailto:a", 424, "did not come"),
        ("redirect?to=http://xn--a.org/", 424, "did not come"),
        ("redirect?to=http://user:secret@127.0.0.1/", 403, "was redirected: the URL has a user in it"),
        ("chunked?bytes=5000", 415, "not-a-tiff"),
        ("chunked?bytes=600000", 413, "500,000 bytes"),
    ],
)
def test_what_a_host_may_answer(
    client: TestClient, host: FileHost, path: str, status: int, said: str
) -> None:
    answer = post(client, [("tile", host.url(path))])
    assert answer.status_code == status
    assert said in answer.text


def test_a_log_for_debugging_has_no_signatures(
    client: TestClient, host: FileHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert post(client, [("tile", host.url("redirect?to=/a.tif%3Fsig=secret"))]).status_code == 200
    assert "secret" not in caplog.text


def test_a_url_is_repeated_as_it_was_sent(
    client: TestClient, host: FileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    log = SimpleNamespace(info=lambda event, detail: logged.append(f"{event}: {detail}"))
    monkeypatch.setattr("service.http.fetch.log", log)
    answer = post(client, [("tile", host.url("%1b%5b2Jmissing.tif?sig=secret"))])
    assert "/%1b%5b2Jmissing.tif was answered 404" in answer.json()["detail"]
    assert answer.status_code == 424
    assert logged == [f"fetch failed: {answer.json()['detail']}"]
    assert "secret" not in answer.text


def test_urls_are_quoted_and_what_cannot_be_fails_alone(client: TestClient, host: FileHost) -> None:
    urls = [host.url("folder/b c.tif"), host.url("a\n.tif")]
    answer = post(client, [("tile", url) for url in urls])
    [quoted, broken] = answer.json()["data"]
    assert quoted["source"] == "b c.tif"
    assert "embedding" in quoted
    assert broken["error"]["type"].endswith("bad-parameter")


def test_a_tile_that_does_not_come_keeps_its_id(client: TestClient, host: FileHost) -> None:
    missing, there = (None, host.url("missing.tif")), (None, host.url("a.tif"))
    files = [("tile", missing), ("tile", missing), ("tile", there)]
    items = client.post("/embed", files=files, data={"id": ["x", "y", "z"]}).json()["data"]
    assert [item["id"] for item in items] == ["x", "y", "z"]
    assert [("error" in item) for item in items] == [True, True, False]


def test_no_request_takes_all_places(make_client: MakeClient, host: FileHost) -> None:
    client = make_client(fetch_hosts=host.allowed, fetch_timeout_s=30)
    slow = [("tile", (None, host.url(f"slow?{i}"))) for i in range(100)]

    def ask_slowly() -> Response:
        return client.post("/embed", files=slow, headers={"X-Timeout-Ms": "2500"})

    with ThreadPoolExecutor(1) as thread:
        one = thread.submit(ask_slowly)
        while not host.asked:
            time.sleep(0.01)
        start = time.perf_counter()
        assert post(client, [("tile", host.url("a.tif"))]).status_code == 200
        assert time.perf_counter() - start < 1.5
        assert one.result().status_code == 504
    assert 'landmoe_fetches_total{outcome="cancelled"} 0.0' not in client.get("/metrics").text


def test_what_was_spooled_is_freed_when_the_time_is_over(make_client: MakeClient, host: FileHost) -> None:
    client = make_client(fetch_hosts=host.allowed, spool_above_mb=0.01)
    files = [("tile", (None, host.url("stalls"))), ("tile", (None, host.url("a.tif")))]
    answer = client.post("/embed", files=files, headers={"X-Timeout-Ms": "500"})
    assert answer.status_code == 504
    app: Any = client.app
    assert app.state.spool.used == 0


def test_files_share_the_memory_of_their_request(host: FileHost, tmp_path: Path) -> None:
    host.files |= {str(i): bytes(30_000) for i in range(8)}
    upload = Upload([LinkedFile(b"", None, host.url(str(i))) for i in range(8)], {})
    spool = Spool(tmp_path, 100_000, 10**6)

    async def fetch() -> None:
        hosts = AllowedHosts(host.allowed)
        fetcher = Fetcher(hosts, timeout_s=10, max_bytes=10**6, admit=lambda _: None)
        try:
            await follow(upload, [TileParameters()] * 8, fetcher, spool)
        finally:
            await fetcher.close()

    asyncio.run(fetch())
    in_memory = [file for file in upload.files if isinstance(file, File) and isinstance(file.data, bytes)]
    assert len(in_memory) == 3
    assert spool.used == 5 * 30_000
    upload.close()
    assert spool.used == 0


def test_redirections_end(client: TestClient, host: FileHost) -> None:
    path = "a.tif"
    for _ in range(6):
        path = f"redirect?to={quote('/' + path, safe='')}"
    answer = post(client, [("tile", host.url(path))])
    assert answer.status_code == 424
    assert "redirected more than 5 times" in answer.text
    assert len(host.asked) == 6


def test_a_host_that_is_down(make_client: MakeClient) -> None:
    with file_host() as host:
        allowed, url = host.allowed, host.url("a.tif")
    answer = post(make_client(fetch_hosts=allowed), [("tile", url)])
    assert answer.status_code == 424
    assert answer.json()["type"].endswith("fetch-failed")


def test_files_count_together(client: TestClient, host: FileHost) -> None:
    large = sample.make(1)
    for i in range(40):
        host.files[f"{i}.tif"] = large + bytes(80_000 + i)
    answer = post(client, [("tile", host.url(f"{i}.tif")) for i in range(8)])
    assert answer.status_code == 413
    assert "LANDMOE_MAX_UPLOAD_MB" in answer.text


def test_more_links_than_tiles_allowed_are_not_followed(client: TestClient, host: FileHost) -> None:
    answer = post(client, [("tile", host.url("a.tif"))] * 9)
    assert answer.status_code == 413
    assert "LANDMOE_MAX_TILES" in answer.text
    assert host.asked == []


def test_nothing_is_fetched_for_a_request_that_is_refused(client: TestClient, host: FileHost) -> None:
    assert post(client, [("tile", host.url("a.tif"))], pooling="none").status_code == 422
    assert post(client, [("tile", host.url("a.tif"))], lat="north", lon="0").status_code == 422
    assert host.asked == []


def test_without_hosts_a_link_is_refused(client: TestClient, make_client: MakeClient, host: FileHost) -> None:
    answer = post(make_client(), [("tile", host.url("a.tif"))])
    assert answer.status_code == 403
    assert "LANDMOE_FETCH_HOSTS" in answer.json()["detail"]
    assert host.asked == []


def test_the_time_that_a_client_allows_holds_for_fetching_too(client: TestClient, host: FileHost) -> None:
    start = time.perf_counter()
    answer = client.post(
        "/embed", files=[("tile", (None, host.url("slow")))], headers={"X-Timeout-Ms": "200"}
    )
    assert answer.status_code == 504
    assert time.perf_counter() - start < 1.9


def test_a_service_that_takes_no_tiles_fetches_none(client: TestClient, host: FileHost) -> None:
    app: Any = client.app
    assert client.portal is not None
    client.portal.call(app.state.batcher.drain)
    assert post(client, [("tile", host.url("a.tif"))]).status_code == 503
    assert host.asked == []


def test_a_delivery_is_linked_to(client: TestClient, host: FileHost) -> None:
    parts = deliveries.parts(metadata=deliveries.mtl(), flags=np.full((41, 41), deliveries.CLEAR))
    host.files |= dict(parts.values())
    links = [(name, host.url(filename)) for name, (filename, _) in parts.items()]
    linked = post(client, links)
    uploaded = client.post("/embed", files=list(parts.items()))
    assert linked.status_code == uploaded.status_code == 200, linked.text
    ours, theirs = linked.json()["data"][0], uploaded.json()["data"][0]
    assert not ours.pop("cached")
    theirs.pop("cached")
    assert ours == theirs
    assert ours["datetime"] == deliveries.ACQUIRED
    for name in ("SR_B4", "QA_PIXEL", "MTL"):
        missing = parts[name][0]
        content = host.files.pop(missing)
        answer = post(client, links)
        assert answer.status_code == 424
        assert missing in answer.json()["detail"]
        host.files[missing] = content


def test_a_scene_is_linked_to_and_spooled(make_client: MakeClient, host: FileHost) -> None:
    host.files["scene.tif"] = geotiff(dn_pixels(200, 240))
    client = make_client(fetch_hosts=host.allowed, spool_above_mb=0.01)
    answer = post(client, [("tile", host.url("scene.tif"))], fit="grid")
    assert answer.status_code == 200
    assert answer.json()["summary"]["windows"] == 30
    app: Any = client.app
    assert app.state.spool.used == 0
    assert post(client, [("tile", host.url("cut"))], fit="grid").status_code == 424
    assert app.state.spool.used == 0
