"""`landmoe serve` as a process: start, answer, refuse, drain, stop."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from model import bundle
from tests.rasters import dn_pixels, geotiff
from tests.service.load_accounts import FAULTY, metric
from tests.service.server_process import ServerProcess, run

pytestmark = pytest.mark.server
TIFF = {"Content-Type": "image/tiff"}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(LANDMOE_MAX_UPLOAD_MB="2") as process:
        yield process


def test_serves_the_bundle_of_the_package(server: ServerProcess) -> None:
    loaded = bundle.load()
    answer = httpx.post(f"{server.url}/embed", content=geotiff(), headers=TIFF)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["model"]["digest"] == loaded.digest
    assert len(body["data"][0]["embedding"]) == loaded.config.embed_dim == body["dim"]
    codes = {w["code"] for w in body["data"][0]["warnings"]}
    assert ("untrained-model" in codes) == (not loaded.trained)
    assert httpx.get(f"{server.url}/model").json()["trained"] == loaded.trained


def test_answers_are_the_same_bytes_every_time(server: ServerProcess) -> None:
    headers = TIFF | {"Cache-Control": "no-cache"}
    data = geotiff()

    def fresh(pooling: str) -> bytes:
        params = {"format": "npy", "pooling": pooling}
        return httpx.post(f"{server.url}/embed", content=data, params=params, headers=headers).content

    alone = {pooling: fresh(pooling) for pooling in ("mean", "cls", "patch_mean_std", "tokens")}
    for pooling, content in alone.items():
        assert fresh(pooling) == content
    # In company: other tiles arrive at once, and the request's own batch grows.
    with httpx.Client() as client:
        others = [
            threading.Thread(
                target=client.post,
                args=(f"{server.url}/embed",),
                kwargs={"content": geotiff(dn_pixels(seed=seed)), "headers": headers},
            )
            for seed in range(1, 9)
        ]
        for thread in others:
            thread.start()
        crowded = fresh("tokens")
        for thread in others:
            thread.join()
    assert crowded == alone["tokens"]


def test_a_request_leaves_one_line_in_the_log(server: ServerProcess) -> None:
    headers = TIFF | {"X-Request-ID": "look-for-me"}
    httpx.post(f"{server.url}/embed", content=b"GIF89a", headers=headers)
    line = server.wait_for("request")
    while line["request_id"] != "look-for-me":
        line = server.wait_for("request")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/embed", 415)
    assert line["outcome"] == "not-a-tiff"
    assert line["level"] == "info"
    assert isinstance(line["duration_ms"], float)
    # Probes ask every few seconds; they would bury everything else.
    httpx.get(f"{server.url}/livez")
    assert not [seen for seen in server.lines if seen.get("path") == "/livez"]


def test_a_long_path_does_not_fill_the_log(server: ServerProcess) -> None:
    path = "/" + "a" * 60_000
    assert httpx.get(f"{server.url}{path}", headers={"X-Request-ID": "long"}).status_code == 404
    line = server.wait_for("request")
    while line["request_id"] != "long":
        line = server.wait_for("request")
    assert line["path"] == path[:500]


def test_a_large_body_is_refused_before_it_is_read(server: ServerProcess) -> None:
    """The client is answered although it has sent nothing but the head."""
    host, port = re.fullmatch(r"http://(.+):(\d+)", server.url).groups()  # type: ignore[union-attr]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\n"
            b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_much_gets_to_read_the_answer(server: ServerProcess, chunked: bool) -> None:
    body = b"II*\0" * 5_000_000
    content = iter([body[i : i + 100_000] for i in range(0, len(body), 100_000)]) if chunked else body
    answer = httpx.post(f"{server.url}/embed", content=content, headers=TIFF)
    assert answer.status_code == 413
    assert "2,000,000" in answer.json()["detail"]


def whole_answer(connection: socket.socket) -> bytes:
    """One answer, in however many pieces it comes; the connection stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    while len(body) < int(length[1]):
        piece = connection.recv(65536)
        assert piece
        body += piece
    return head + b"\r\n\r\n" + body


def test_a_body_that_follows_its_refusal_does_not_harm_the_connection(server: ServerProcess) -> None:
    host, port = re.fullmatch(r"http://(.+):(\d+)", server.url).groups()  # type: ignore[union-attr]
    head = "POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(f"{head}X-Timeout-Ms: 0\r\nContent-Length: 400000\r\n\r\n".encode())
            assert whole_answer(connection).startswith(b"HTTP/1.1 422")
            for _ in range(4):
                connection.sendall(bytes(100_000))
                time.sleep(0.01)
        content = geotiff()
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        assert whole_answer(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_goes_away_costs_nothing_more(server: ServerProcess) -> None:
    host, port = re.fullmatch(r"http://(.+):(\d+)", server.url).groups()  # type: ignore[union-attr]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: image/tiff\r\nContent-Length: 20000\r\n\r\nII*\0"
        )
    line = server.wait_for("request")
    while line["outcome"] != "disconnected":
        line = server.wait_for("request")
    text = httpx.get(f"{server.url}/metrics").text
    assert 'landmoe_requests_total{outcome="disconnected",route="/embed"}' in text
    assert 'outcome="internal-error"' not in text


def test_requests_under_way_are_finished_before_it_stops(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    files = [("tile", (f"{seed}.tif", geotiff(dn_pixels(seed=seed)))) for seed in range(64)]
    with ServerProcess(command=FAULTY, HELD_WHILE=str(held)) as server, ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(httpx.post, f"{server.url}/embed", files=files, timeout=60) for _ in range(2)]
        while metric(server, "landmoe_requests_in_flight") < 3:  # both, and the one that asks
            time.sleep(0.005)
        status = pool.submit(server.stop)
        server.wait_for("stopping")
        held.unlink()
        assert status.result() == 0
        answers = [answer.result() for answer in sent]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert all(answer.json()["summary"]["embedded"] == 64 for answer in answers)


def test_several_workers_share_a_port_and_their_metrics() -> None:
    with ServerProcess("--workers", "2", LANDMOE_CACHE_MB="0") as server:
        for seed in range(12):
            # A connection for each request, so that both workers get some.
            content = geotiff(dn_pixels(seed=seed))
            assert httpx.post(f"{server.url}/embed", content=content, headers=TIFF).status_code == 200
        # A request is counted right after its answer was sent; meanwhile the other worker may be asked.
        while metric(server, "landmoe_requests_total", outcome="ok", route="/embed") < 12:
            time.sleep(0.01)
        for _ in range(4):
            text = httpx.get(f"{server.url}/metrics", timeout=60).text
            assert 'landmoe_requests_total{outcome="ok",route="/embed"} 12.0' in text
            assert re.search(r"^landmoe_model_info\{.*\} 1\.0$", text, re.MULTILINE)
        assert server.stop() == 0


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bad_bundle_is_said_in_one_line(tmp_path: Path, workers: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle.DEFAULT, damaged)
    with (damaged / "encoder.fp32.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    for path, word in ((tmp_path / "nothing", "no bundle"), (damaged, "damaged")):
        done = run("serve", "--port", "0", "--workers", workers, "--bundle", str(path))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_a_bad_setting_is_said_in_one_line() -> None:
    done = run("serve", "--port", "0", LANDMOE_MAX_UPLOAD_MB="much")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "LANDMOE_MAX_UPLOAD_MB" in done.stderr
    assert "'much'" in done.stderr


def test_info_is_of_what_would_be_served(tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.load().path, tmp_path / "copy")
    assert json.loads(run("info", "--json", LANDMOE_BUNDLE=str(copy)).stdout)["path"] == str(copy)
    assert run("info", LANDMOE_BUNDLE="/nowhere").stderr.startswith("landmoe: no bundle at /nowhere")


def test_info_for_programs_and_for_people() -> None:
    loaded = bundle.load()
    told = json.loads(run("info", "--json").stdout)
    assert told["digest"] == loaded.digest
    assert told["trained"] == loaded.trained
    assert loaded.name in run("info", COLUMNS="200").stdout
    missing = run("info", "/nowhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("landmoe: no bundle at /nowhere")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LANDMOE_PROVIDER", "cuda", "ONNX Runtime has no CUDA"),
        ("LANDMOE_REDIS_URL", "nonsense", "expected redis://"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(name: str, value: str, words: str, workers: str) -> None:
    done = run("serve", "--port", "0", "--workers", workers, **{name: value})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
