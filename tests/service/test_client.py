"""The client against the application: what is a tile, how many go at once, and what failed."""

from __future__ import annotations

import asyncio
import copy
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service.app import create_app
from service.client import AsyncClient, Client
from service.clients.errors import (
    AuthenticationError,
    OverloadedError,
    TileProblemError,
    TooLargeError,
    TransportError,
    UnusableTileError,
)
from service.clients.in_process import InProcessTransport
from service.clients.results import Embedding, Failure
from service.clients.tiles import Tile
from service.settings import Settings
from tests.rasters import ORIGIN, dn_pixels, geotiff
from tests.service.fake_engine import FakeEngine


class _Local(InProcessTransport):
    """The application with an engine that needs no model."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(Settings(**settings), app=create_app(Settings(**settings), FakeEngine()))


def local(client: dict[str, Any] | None = None, **settings: Any) -> Client:
    return Client("http://local", transport=_Local(**settings), **(client or {}))


@pytest.fixture
def client() -> Iterator[Client]:
    with local() as client:
        yield client


def test_everything_that_is_a_tile(client: Client, tmp_path: Path) -> None:
    data = geotiff()
    path = tmp_path / "tile.tif"
    path.write_bytes(data)
    array = Tile(data=dn_pixels(), crs="EPSG:32633", transform=(30, 0, ORIGIN[0], 0, -30, ORIGIN[1]))
    answer = client.embed([path, str(path), data, bytearray(data), array])
    values = answer.array()
    assert values.shape == (5, 12)
    assert values.dtype == np.float32
    assert (values == values[0]).all()
    assert [item.source for item in answer.results] == ["tile.tif"] * 5
    assert [item.index for item in answer] == [0, 1, 2, 3, 4]
    assert answer.model["name"] == "fake"
    assert answer.summary == {"tiles": 5, "windows": 5, "embedded": 5, "skipped_empty": 0, "failed": 0}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            {"transform": (ORIGIN[0], 30, 0, ORIGIN[1], 0, -30), "crs": "EPSG:32633"},
            "of GDAL's order or",
        ),
        ({"transform": (30, 0, 0), "crs": "EPSG:32633"}, "too short; expected"),
        ({"crs": "EPSG:32633"}, "EPSG:32633 and no transform; expected both"),
    ],
)
def test_a_place_that_would_be_another_or_none(client: Client, place: dict[str, Any], words: str) -> None:
    with pytest.raises(UnusableTileError, match=words):
        client.embed(Tile(data=dn_pixels(), **place))


@pytest.mark.parametrize("given", [geotiff(), dn_pixels(), Tile(data=geotiff())])
def test_a_single_tile_needs_no_list(client: Client, given: Any) -> None:
    assert len(client.embed(given)) == 1


def test_a_stack_of_arrays_is_many_tiles(client: Client) -> None:
    stack = np.stack([dn_pixels(seed=n) for n in range(3)])
    assert client.embed(stack).array().shape == (3, 12)


def test_tokens_keep_their_shape(client: Client) -> None:
    assert client.embed([geotiff(), geotiff()], pooling="tokens").array().shape == (2, 105, 12)


def test_what_is_said_of_each_tile(client: Client) -> None:
    tiles = [
        Tile(data=geotiff(), id="a", datetime="2020-08-02", lat=47.7, lon=13.4),
        geotiff(crs=None),
        Tile(
            data=geotiff(dn_pixels() * np.float32(2.75e-5) - np.float32(0.2)),
            units="reflectance",
            name="x.tif",
        ),
    ]
    one, two, three = client.embed(tiles, datetime_source="request").results
    assert (one.id, one.fields["datetime"], one.fields["lat"]) == ("a", "2020-08-02", 47.7)
    assert (two.id, two.fields["datetime"], two.fields["lat"]) == ("1", None, None)
    assert (three.id, three.source, three.fields["units"]) == ("2", "x.tif", "reflectance")


def test_what_is_said_of_all_holds_for_tiles_that_say_nothing_else(client: Client) -> None:
    own = Tile(data=geotiff(), datetime="2024-07-01T10:10:00Z", lat=1.5, lon=2.5)
    answer = client.embed([own, geotiff()], datetime="2020-01-05T20:00:00Z")
    assert [item.fields["datetime"] for item in answer.results] == [
        "2024-07-01T10:10:00Z",
        "2020-01-05T20:00:00Z",
    ]
    assert [item.fields["lat"] == 1.5 for item in answer.results] == [True, False]


def test_many_tiles_are_divided_and_come_back_in_order() -> None:
    tiles = [geotiff(dn_pixels(seed=n)) for n in range(50)]
    done: list[tuple[int, int]] = []
    with local({"tiles_per_request": 4, "concurrency": 3}) as divided, local() as whole:
        many = divided.embed(tiles, progress=lambda *at: done.append(at))
        assert [item.id for item in many.results] == [str(n) for n in range(50)]
        assert (many.array() == whole.embed(tiles).array()).all()
    assert len(done) == 13
    assert done[-1] == (50, 50)
    assert many.summary["embedded"] == 50


def test_an_interrupted_call_goes_no_further() -> None:
    tiles = [geotiff(dn_pixels(seed=n)) for n in range(10)] * 50
    done: list[int] = []

    def progress(number: int, _: int) -> None:
        done.append(number)
        if number == 3:  # Ctrl-C
            signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)

    with local({"tiles_per_request": 1, "concurrency": 1}) as client:
        with pytest.raises(KeyboardInterrupt):
            client.embed(tiles, progress=progress)
        assert len(client.embed(tiles[:2])) == 2
        reached = len(done)
        time.sleep(0.2)
        assert len(done) == reached < len(tiles)


def test_what_the_caller_s_progress_raises_is_raised_as_it_is(client: Client) -> None:
    def progress(done: int, total: int) -> None:
        raise LookupError(f"{done} of {total}")

    with pytest.raises(LookupError, match="1 of 1"):
        client.embed(geotiff(), progress=progress)


def test_the_service_s_own_limit_divides_too() -> None:
    with local(max_tiles=3) as client:
        assert len(client.embed([geotiff()] * 10).results) == 10


def test_a_failing_tile_fails_alone(client: Client) -> None:
    answer = client.embed([geotiff(), b"no tiff", geotiff(np.zeros((7, 41, 41), np.uint16))])
    assert [type(item) for item in answer] == [Embedding, Failure, Failure]
    assert [failure.error.code for failure in answer.failures] == ["not-a-tiff", "empty-tile"]  # type: ignore[attr-defined]
    assert [failure.index for failure in answer.failures] == [1, 2]
    with pytest.raises(TileProblemError, match="no tiff"):
        answer.raise_for_failures()
    with pytest.raises(TileProblemError):
        answer.array()


def test_a_file_that_cannot_be_read_fails_alone(client: Client, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.tif", "b.tif", "c.tif")]
    for path in (paths[0], paths[2]):
        path.write_bytes(geotiff())
    answer = client.embed(paths, keep_going=True)
    assert [isinstance(item, Failure) for item in answer] == [False, True, False]
    assert "b.tif: No such file" in str(answer.failures[0].error)
    with pytest.raises(UnusableTileError, match=r"b\.tif"):
        client.embed(paths)


def test_answers_and_errors_go_to_other_processes(client: Client) -> None:
    answer = client.embed([geotiff(), b"not a TIFF"])
    again = pickle.loads(pickle.dumps(answer))  # noqa: S301  # our own
    assert np.array_equal(again.results[0].values, answer.results[0].values)
    [failure], [came] = answer.failures, again.failures
    assert (came.index, came.id, type(came.error)) == (failure.index, failure.id, type(failure.error))
    assert vars(came.error) == vars(failure.error)
    assert str(came.error) == str(failure.error)
    busy = OverloadedError({"status": 429, "detail": "busy"}, 3.0)
    assert copy.copy(busy).retry_after_s == 3.0


def test_a_key_that_is_not_ascii() -> None:
    with pytest.raises(TransportError, match="ASCII"):
        Client(api_key="clé")


def test_failures_have_the_ids_that_were_given(client: Client) -> None:
    tiles = [
        Tile(data=geotiff(), id="x"),
        Tile(data=b"broken", id="y"),
        Tile(data=geotiff(), units="z", id="w"),
    ]
    answer = client.embed(tiles)
    assert [item.id for item in answer] == ["x", "y", "w"]
    assert [item.index for item in answer.failures] == [1, 2]


def test_what_a_masked_array_hides_is_missing(client: Client) -> None:
    mask = np.zeros((7, 40, 40), bool)
    mask[:, :20] = True
    for pixels in (dn_pixels(40, 40), dn_pixels(40, 40).astype(np.float32) * 2.75e-5 - 0.2):
        for nodata in (None, 1.5):
            masked = np.ma.masked_array(pixels, mask=mask)
            given = Tile(data=masked, nodata=nodata if pixels.dtype.kind == "f" else nodata and 65535)
            (result,) = client.embed(given).results
            assert result.fields["valid_fraction"] == 0.5


def test_a_value_for_nothing_is_said_of_files_and_arrays(client: Client) -> None:
    pixels = dn_pixels(40, 40)
    pixels[:, :20] = 65535
    tiles = [
        Tile(data=geotiff(pixels), nodata=65535),
        Tile(data=pixels, nodata=np.uint16(65535)),
        Tile(data=geotiff(pixels, nodata=65535)),
        Tile(data=geotiff(pixels, nodata=65535), nodata="none"),
        Tile(data=pixels, nodata="none"),
    ]
    found = client.embed(tiles).results
    assert [result.fields["valid_fraction"] for result in found] == [0.5, 0.5, 0.5, 1, 1]
    (result,) = client.embed(geotiff(pixels), nodata=65535).results
    assert result.fields["valid_fraction"] == 0.5


def test_a_client_that_is_not_open_says_so() -> None:
    client = local()
    with pytest.raises(RuntimeError, match="with Client"):
        client.model()
    with client:
        client.model()
    with pytest.raises(RuntimeError, match="with Client"):
        client.model()


def test_all_tiles_of_a_request_fail_each_for_its_own_reason() -> None:
    with local({"tiles_per_request": 2}) as client:
        answer = client.embed([b"one", geotiff(np.zeros((7, 41, 41), np.uint16)), geotiff()])
    assert [failure.error.code for failure in answer.failures] == ["not-a-tiff", "empty-tile"]  # type: ignore[attr-defined]
    assert answer.summary["failed"] == 2
    assert answer.failures[0].error.request_id  # type: ignore[attr-defined]


def test_a_scene(client: Client) -> None:
    answer = client.embed([geotiff(dn_pixels(120, 80))], fit="grid")
    places = [(item.fields["row"], item.fields["col"]) for item in answer.results]
    assert places == [(row, col) for row in range(3) for col in range(2)]
    assert answer.array().shape == (6, 12)


def test_a_scene_says_what_was_left_out(client: Client) -> None:
    pixels = dn_pixels(120, 80)
    pixels[:, :40] = 0
    answer = client.embed([geotiff(pixels), geotiff(dn_pixels(40, 40))], fit="grid")
    assert len(answer) == 5
    assert answer.summary == {"tiles": 2, "windows": 7, "embedded": 5, "skipped_empty": 2, "failed": 0}


@pytest.mark.parametrize(
    "given", ["/no/such/file.tif", 7, np.zeros((3, 3)), dn_pixels().astype(np.complex64), [None]]
)
def test_what_is_no_tile(client: Client, given: Any) -> None:
    with pytest.raises(UnusableTileError):
        client.embed(given)


def test_an_array_with_its_bands_last_is_told_how_to_turn(client: Client) -> None:
    with pytest.raises(UnusableTileError, match=r"\(41, 41, 7\), its bands last.*numpy\.moveaxis"):
        client.embed([dn_pixels().transpose(1, 2, 0)])


@pytest.mark.parametrize("values", [["2020-08-02", "2020-08-03"], np.array([47.0, 48.0])])
def test_a_value_for_each_tile_stands_in_the_tile(client: Client, values: Any) -> None:
    name = "datetime" if isinstance(values, list) else "lat"
    with pytest.raises(
        TypeError, match=rf"{name} is a \w+ of 2; expected one value .* Tile\(\.\.\., {name}="
    ):
        client.embed([geotiff(), geotiff()], **{name: values})


def test_the_key_is_sent() -> None:
    key = "k" * 20
    with local({"api_key": key}, api_keys=key) as client:
        assert len(client.embed(geotiff()).results) == 1
    with (
        local({"api_key": "other"}, api_keys=key) as client,
        pytest.raises(AuthenticationError, match="not known"),
    ):
        client.embed(geotiff())


def test_a_request_that_is_too_large_as_a_whole() -> None:
    big = np.tile(dn_pixels(), (1, 10, 10))
    with local(max_upload_mb=0.1) as client:
        with pytest.raises(TooLargeError):
            client.embed([big], fit="resize")
        answer = client.embed([geotiff(), big], fit="resize", keep_going=True)
    assert [type(item) for item in answer] == [Embedding, Failure]


def test_asyncio() -> None:
    async def both() -> list[int]:
        async with AsyncClient("http://local", transport=_Local()) as client:
            answers = await asyncio.gather(client.embed(geotiff()), client.embed([geotiff()] * 3))
            return [len(answer) for answer in answers]

    assert asyncio.run(both()) == [1, 3]
