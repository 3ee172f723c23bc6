"""Large bodies and answers on disk: nothing is left behind, and a full disk is told."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.http.spool import Spool, SpoolError, SpoolFile
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.conftest import MakeClient
from tests.service.server_process import ServerProcess

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}
NOISE = geotiff(np.random.default_rng(0).integers(6000, 20_000, (7, 300, 300), dtype=np.uint16))  # 1.26 MB


@pytest.fixture
def spooling(make_client: MakeClient, tmp_path: Path) -> TestClient:
    return make_client(spool_dir=tmp_path / "spool", spool_above_mb=0.1, max_spool_mb=4)


def used(client: TestClient) -> int:
    return int(client.app.state.spool.used)  # type: ignore[attr-defined]


def wait_until_unused(client: TestClient, timeout_s: float = 30) -> None:
    """A scene lets its files go in its thread, after the answer."""
    end = time.monotonic() + timeout_s
    while used(client) and time.monotonic() < end:
        time.sleep(0.01)
    assert used(client) == 0


def test_files_begin_in_memory_share_it_and_go_to_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, memory_bytes=100, max_bytes=1000)
    share = spool.share()
    first, second = share.open(), share.open()
    first.write(b"a" * 60)
    second.write(b"b" * 60)
    assert (first.on_disk, second.on_disk, spool.used) == (False, True, 60)
    first.write(b"c" * 60)
    assert first.on_disk
    assert spool.used == 180
    assert first.getvalue() == b"a" * 60 + b"c" * 60
    first.seek(0)
    assert first.write(b"xyz") == 3
    with first.opened() as path:
        assert path.read_bytes()[:5] == b"xyzaa"
        first.close()
        assert path.read_bytes()[:3] == b"xyz"  # whoever reads, reads on
    second.close()
    assert spool.used == 0
    assert list(tmp_path.iterdir()) == []


def test_the_room_is_limited(tmp_path: Path) -> None:
    spool = Spool(tmp_path, memory_bytes=10, max_bytes=100)
    with pytest.raises(SpoolError, match="101"):
        spool.check(101)
    spool.check(100)
    spool.check(5)
    file = spool.share().open()
    file.write(b"a" * 90)
    with pytest.raises(SpoolError, match="LANDMOE_MAX_SPOOL_MB"):
        file.write(b"a" * 11)
    file.close()
    assert spool.used == 0


def test_a_full_disk_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.http.spool.tempfile.TemporaryFile", full)
    file = Spool(tmp_path, memory_bytes=10, max_bytes=100).share().open()
    with pytest.raises(SpoolError, match="No space left"):
        file.write(b"a" * 20)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_disk_that_fills_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        return Path("/dev/full").open("r+b", buffering=0)

    monkeypatch.setattr("service.http.spool.tempfile.TemporaryFile", full)
    spool = Spool(tmp_path, memory_bytes=10, max_bytes=10_000)
    file: SpoolFile = spool.share().open()
    with pytest.raises(SpoolError, match="disk is full"):
        file.write(b"a" * 5000)
    file.close()
    assert spool.used == 0


@pytest.mark.parametrize("form", [False, True])
def test_a_large_body_gives_the_same_answer(
    client: TestClient, spooling: TestClient, form: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    monkeypatch.setattr(SpoolFile, "opened", _noting(SpoolFile.opened, opened))

    def send(to: TestClient) -> Any:
        params = {"fit": "grid", "units": "dn"}
        if form:
            body = to.post("/embed", files={"tile": ("a.tif", NOISE)}, data=params).json()
        else:
            body = to.post("/embed", content=NOISE, params=params, headers=TIFF).json()
        return body["data"]

    expected = send(client)
    assert not opened
    assert send(spooling) == expected
    assert opened
    assert used(spooling) == 0


def _noting(function: Any, into: list[bool]) -> Any:
    def wrapped(self: SpoolFile) -> Any:
        into.append(True)
        return function(self)

    return wrapped


def test_a_delivery_larger_than_memory(client: TestClient, spooling: TestClient) -> None:
    files = deliveries.parts(
        dn_pixels(200, 200), flags=np.full((200, 200), 64), metadata=deliveries.mtl("json")
    )
    bodies = [to.post("/embed", files=files, data={"fit": "grid"}) for to in (client, spooling)]
    assert bodies[0].json()["summary"]["embedded"] == 25
    assert bodies[0].json() == bodies[1].json()
    wait_until_unused(spooling)


def test_band_names_that_are_not_unicode_do_not_matter_on_disk(spooling: TestClient) -> None:
    data = geotiff(dn_pixels(300, 300), descriptions=["caf\u00e9"] * 7)
    broken = data.replace("caf\u00e9".encode(), b"caf\xe9\xe9")
    assert broken != data
    response = spooling.post("/embed", content=broken, params={"fit": "grid"}, headers=TIFF)
    assert response.status_code == 200, response.text


def test_a_large_answer_is_sent_from_disk_whole(client: TestClient, spooling: TestClient) -> None:
    params = {"fit": "grid", "stride": "20", "units": "dn", "pooling": "tokens", "format": "npy"}
    small, large = (
        to.post("/embed", content=NOISE, params=params, headers=TIFF) for to in (client, spooling)
    )
    assert int(large.headers["content-length"]) == len(large.content) > 500_000
    assert large.content == small.content
    assert used(spooling) == 0


def test_no_room_is_507_and_said_before_the_body_comes(spooling: TestClient) -> None:
    response = spooling.post("/embed", content=NOISE * 4, headers=TIFF)
    assert response.status_code == 507
    assert response.json()["type"].endswith("no-room")
    streamed = spooling.post("/embed", content=iter([NOISE] * 4), headers=TIFF)
    assert streamed.status_code == 507
    form = spooling.post("/embed", files=[("tile", ("a.tif", NOISE))] * 4)
    assert form.status_code == 507
    params = {"fit": "grid", "stride": "10", "units": "dn", "pooling": "tokens", "format": "npy"}
    answer = spooling.post("/embed", content=NOISE, params=params, headers=TIFF)
    assert answer.status_code == 507
    wait_until_unused(spooling)
    assert spooling.post("/embed", content=geotiff(), headers=TIFF).status_code == 200


def test_wrong_bodies_leave_nothing(spooling: TestClient) -> None:
    assert spooling.post("/embed", content=b"GIF89a" * 100_000, headers=TIFF).status_code == 415
    parts = [("tile", ("a.tif", NOISE)), ("other", ("b.tif", NOISE))]
    assert spooling.post("/embed", files=parts).status_code == 422
    broken = b'--x\r\nContent-Disposition: form-data; name="tile"; filename="a"\r\n\r\n' + NOISE
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert spooling.post("/embed", content=broken, headers=headers).status_code == 400
    assert used(spooling) == 0


def test_a_folder_that_cannot_be_used_stops_the_start(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_client(spool_dir=tmp_path / "file")


@pytest.mark.server
def test_killed_in_the_middle_of_an_upload_it_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with ServerProcess(LANDMOE_SPOOL_DIR=str(folder), LANDMOE_SPOOL_ABOVE_MB="0.1") as server:
        host, port = server.url.removeprefix("http://").split(":")
        for kill in (False, True):
            with socket.create_connection((host, int(port))) as connection:
                head = f"POST /embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/tiff\r\n"
                connection.sendall(f"{head}Content-Length: 50000000\r\n\r\n".encode() + NOISE * 10)
                _wait_for(lambda: _open_in(server.process.pid, folder) == 1)
                assert list(folder.iterdir()) == []
                if kill:
                    server.process.kill()
                    server.process.wait(10)
            if not kill:  # the client has gone; the service lets go of the file
                _wait_for(lambda: _open_in(server.process.pid, folder) == 0)
    assert list(folder.iterdir()) == []


def _open_in(pid: int, folder: Path) -> int:
    """Open files without a name in a folder."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return sum(link.startswith(f"{folder}/") and link.endswith("(deleted)") for link in links)


def _wait_for(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)


def test_the_settings_have_the_contracts_defaults() -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert settings.spool_memory_bytes == 8_000_000
    assert settings.max_upload_bytes >= 8_000 * 8_000 * 7 * 2
    assert settings.max_pixels >= 8_000 * 8_000
    assert settings.max_windows >= 200 * 200
