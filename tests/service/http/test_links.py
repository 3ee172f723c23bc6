"""Files that requests name by URL: what comes is as if uploaded, and what does not come fails alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.conftest import MakeClient
from tests.service.http.file_host import FileHost
from tests.service.http.linking import post

TILE = geotiff(dn_pixels(seed=1))


@pytest.fixture
def client(make_client: MakeClient, host: FileHost) -> TestClient:
    return make_client(fetch_hosts=host.allowed, fetch_timeout_s=2, max_upload_mb=0.5, max_tiles=8)


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
