"""GET /progress, while a scene is computed and before and after."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from service.app import create_app
from service.scene_progress import ScenesUnderway
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import FakeEngine

REQUEST = {"X-Request-ID": "of-a/scene+1"}


class Waiting(FakeEngine):
    """Lets four tiles through, then waits to be told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.reached, self.go_on = 0, threading.Event(), threading.Event()

    def run(
        self,
        dn: NDArray[np.uint16],
        metadata: NDArray[np.float32],
        outputs: Sequence[str],
        *,
        alone: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        if self.seen >= 4:
            self.reached.set()
            assert self.go_on.wait(30)
        self.seen += len(dn)
        return super().run(dn, metadata, outputs, alone=alone)


@pytest.fixture
def engine() -> Waiting:
    return Waiting()


@pytest.fixture
def client(engine: Waiting) -> Iterator[TestClient]:
    settings = Settings(log_level="error", max_inflight_windows=4, max_batch_size=2)
    with TestClient(create_app(settings, engine)) as client:
        yield client


def asked(client: TestClient) -> Any:
    return client.get("/progress", params={"request_id": REQUEST["X-Request-ID"]})


def test_a_scene_is_counted_while_it_is_under_way(client: TestClient, engine: Waiting) -> None:
    scene = geotiff(dn_pixels(160, 200))
    answers: list[Any] = []

    def send() -> None:
        answers.append(client.post("/embed", files={"tile": scene}, data={"fit": "grid"}, headers=REQUEST))

    assert asked(client).status_code == 404
    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert engine.reached.wait(30)
        while (found := asked(client)).json().get("done") == 0:  # the event loop hears of them a little later
            time.sleep(0.01)
        assert found.status_code == 200
        assert found.json()["windows"] == 20
        assert 0 < found.json()["done"] < 20
        assert "X-Request-ID" in asked(TestClient(client.app)).headers
    finally:
        engine.go_on.set()
        sender.join()
    assert answers[0].status_code == 200
    gone = asked(client)
    assert gone.status_code == 404
    assert gone.json()["type"].endswith("not-found")
    assert "of-a/scene+1" in gone.json()["detail"]


def test_of_two_requests_with_one_id_the_later_is_shown() -> None:
    underway = ScenesUnderway()
    with underway.request("a", 3) as first:
        with underway.request("a", 5):
            assert underway["a"].windows == 5
        first.done = 1
        with pytest.raises(KeyError):
            underway["a"]


def test_a_request_id_must_come(client: TestClient) -> None:
    answer = client.get("/progress")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "request_id did not come; expected it in the query"
