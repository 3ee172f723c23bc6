"""A service whose model is another one while it is asked: results of two are never put together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.client import AsyncClient, Client
from service.clients import embed_files, output_file
from service.clients.errors import ModelChangedError
from service.clients.in_process import InProcessTransport
from service.clients.kept_answers import KeptAnswers
from service.clients.tiles import Tile
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import BUNDLE, FakeEngine

TILES = [geotiff(dn_pixels(seed=seed)) for seed in range(4)]


class Replaced(httpx.AsyncBaseTransport):
    """Two services behind one address: the first, then, after so many requests for tiles, the second."""

    def __init__(self, requests: int) -> None:
        digests = ("a" * 64, "b" * 64)
        self._services = [
            InProcessTransport(
                Settings(), app=create_app(Settings(), FakeEngine(replace(BUNDLE, digest=digest)))
            )
            for digest in digests
        ]
        self.requests = requests

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._services[self.requests <= 0].handle_async_request(request)
        self.requests -= request.method == "POST"
        return answer

    async def __aenter__(self) -> Replaced:
        for service in self._services:
            await service.__aenter__()
        return self

    async def __aexit__(self, *_: Any) -> None:
        for service in self._services:
            await service.__aexit__()


def client(requests: int) -> Client:
    return Client("http://two", transport=Replaced(requests), tiles_per_request=2, concurrency=1)


@pytest.mark.parametrize("options", [{}, {"fit": "grid"}])
def test_answers_of_two_models_are_no_answer(options: dict[str, Any]) -> None:
    with (
        client(requests=1) as two,
        pytest.raises(ModelChangedError, match=r"models aaaaaaaaaaaa .* bbbbbbbbbbbb"),
    ):
        two.embed(TILES, **options)


@pytest.mark.parametrize(("options", "requests"), [({}, 2), ({"fit": "grid"}, 4)])
def test_an_answer_says_the_model_that_gave_it(options: dict[str, Any], requests: int) -> None:
    with client(requests) as two:
        assert two.embed(TILES, **options).model["digest"] == "a" * 64
        assert two.embed(TILES, **options).model == {
            "name": "fake", "version": "0.0.1", "digest": "b" * 64, "precision": "fp32",
        }  # fmt: skip


@pytest.mark.parametrize("wanted", ["json", "npy", "parquet"])
def test_a_command_puts_nothing_together_that_does_not_belong_together(tmp_path: Path, wanted: str) -> None:
    tiles = [Tile(data=tmp_path / f"{index}.tif") for index in range(len(TILES))]
    for tile, data in zip(tiles, TILES, strict=True):
        Path(tile.data).write_bytes(data)

    async def run(kept: KeptAnswers) -> embed_files.Outcome:
        transport = Replaced(requests=1)
        async with AsyncClient("http://two", transport=transport, tiles_per_request=2, concurrency=1) as two:
            output = partial(output_file.written, tmp_path / "out")
            return await embed_files.run(two, "/embed", tiles, {}, wanted, kept, lambda *_: None, output)

    with KeptAnswers(tmp_path / "out") as kept, pytest.raises(ExceptionGroup) as caught:
        asyncio.run(run(kept))
    assert caught.group_contains(ModelChangedError)
    assert not (tmp_path / "out").exists()
