"""A service that goes while a command asks it, for a moment or for good."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.client import AsyncClient
from service.clients import embed_files, output_file
from service.clients.errors import TransportError
from service.clients.in_process import InProcessTransport
from service.clients.kept_answers import KeptAnswers
from service.clients.tiles import Tile
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import FakeEngine


class Failing(InProcessTransport):
    """Gives no answer to the second request for tiles, and, if it is gone, to none after it."""

    def __init__(self, *, gone: bool) -> None:
        super().__init__(Settings(), app=create_app(Settings(), FakeEngine()))
        self.gone = gone
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += request.method == "POST"
        if self.asked >= 2 and (self.gone or (self.asked == 2 and request.method == "POST")):
            raise httpx.ConnectError("nobody listens")
        return await super().handle_async_request(request)


def ask(transport: Failing, folder: Path) -> embed_files.Outcome:
    tiles = []
    for number in range(8):
        (folder / f"{number}.tif").write_bytes(geotiff(dn_pixels(seed=number)))
        tiles.append(Tile(data=folder / f"{number}.tif"))

    async def run(kept: KeptAnswers) -> embed_files.Outcome:
        settings: dict[str, Any] = {"tiles_per_request": 2, "concurrency": 1, "max_wait_s": 0}
        async with AsyncClient("http://there", transport=transport, **settings) as client:
            output = partial(output_file.written, folder / "out.npy")
            return await embed_files.run(client, "/embed", tiles, {}, "npy", kept, lambda *_: None, output)

    with KeptAnswers(folder / "out.npy") as kept:
        return asyncio.run(run(kept))


def test_one_that_has_gone_is_not_waited_for_with_each_request(tmp_path: Path) -> None:
    transport = Failing(gone=True)
    with pytest.raises(ExceptionGroup) as caught:
        ask(transport, tmp_path)
    assert caught.group_contains(TransportError, match="nobody listens")
    assert transport.asked < 4  # another may have begun meanwhile
    assert (tmp_path / ".out.npy.unfinished").is_dir()  # what came before is kept


def test_a_request_that_gets_no_answer_fails_alone_where_others_do(tmp_path: Path) -> None:
    transport = Failing(gone=False)
    outcome = ask(transport, tmp_path)
    assert transport.asked == 4
    assert (outcome.unanswered, [code for _, _, code in outcome.failures]) == (2, ["no-answer"] * 2)
    assert np.isnan(np.load(tmp_path / "out.npy")).any(axis=1).tolist() == [n in (2, 3) for n in range(8)]
