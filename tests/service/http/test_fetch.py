"""What hosts answer that are asked for files, how long and how much of it, and what is told of it."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

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
from tests.service.conftest import MakeClient
from tests.service.http.file_host import FileHost, file_host
from tests.service.http.linking import post

TILE = geotiff(dn_pixels(seed=1))


@pytest.fixture
def client(make_client: MakeClient, host: FileHost) -> TestClient:
    return make_client(fetch_hosts=host.allowed, fetch_timeout_s=2, max_upload_mb=0.5, max_tiles=8)


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


def test_no_request_takes_all_places(make_client: MakeClient, host: FileHost) -> None:
    client = make_client(fetch_hosts=host.allowed, fetch_timeout_s=30)
    slow = [("tile", (None, host.url(f"slow?{i}"))) for i in range(100)]

    def ask_slowly() -> Response:
        return client.post("/embed", files=slow, headers={"X-Timeout-Ms": "5000"})

    with ThreadPoolExecutor(1) as thread:
        one = thread.submit(ask_slowly)
        while not host.asked:
            time.sleep(0.01)
        assert post(client, [("tile", host.url("a.tif"))]).status_code == 200
        assert not one.done()
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


def test_the_time_that_a_client_allows_holds_for_fetching_too(
    make_client: MakeClient, host: FileHost
) -> None:
    client = make_client(fetch_hosts=host.allowed, fetch_timeout_s=30)
    start = time.perf_counter()
    answer = client.post(
        "/embed", files=[("tile", (None, host.url("slow")))], headers={"X-Timeout-Ms": "200"}
    )
    assert answer.status_code == 504
    assert time.perf_counter() - start < 20
