"""Scenes of any size by repetition, sent whole to a server, with the memory that it takes meanwhile."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import numpy as np
import rasterio
from rasterio.windows import Window

from model.measurement import Figures
from service import sample
from service.benchmarks.load import LoadError
from service.benchmarks.processes import Server

_ROWS = 256  # that are written at once; also the side of the file's tiles, as in Landsat's own products
_SAMPLING_S = 0.02
_TIMEOUT_S = 1800


def write(path: Path, side: int) -> None:
    """A georeferenced scene of `side` x `side` px, uint16, tiled, uncompressed: the sample tile repeated."""
    tile = sample.pixels()
    repeats = (1, -(-_ROWS // sample.SIDE), -(-side // sample.SIDE))
    rows = np.tile(tile, repeats)[:, :_ROWS, :side]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(tile),
        height=side,
        width=side,
        dtype="uint16",
        crs=sample.CRS,
        transform=rasterio.Affine(
            sample.PIXEL_M, 0, sample.UPPER_LEFT[0], 0, -sample.PIXEL_M, sample.UPPER_LEFT[1]
        ),
        tiled=True,
        blockxsize=_ROWS,
        blockysize=_ROWS,
    ) as file:
        for top in range(0, side, _ROWS):
            height = min(_ROWS, side - top)
            file.write(rows[:, :height], window=Window(0, top, side, height))


def embed(server: Server, path: Path, side: int, stride: int) -> Figures:
    """Sends a scene, waits for its embeddings as GeoParquet, and tells what it took.

    Returns:
        `windows_per_s`, `seconds`, and of the server's memory `rss_mb` (the most while it ran) and
        `rss_before_mb`.

    Raises:
        LoadError: the scene was not answered with 200.
    """
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_TIMEOUT_S)
    before = server.rss_mb()
    start = time.perf_counter()
    with PeakMemory(server) as peak, path.open("rb") as body:
        connection.request(
            "POST",
            f"/embed?fit=grid&stride={stride}&format=parquet",
            body=body,
            headers={
                "Content-Type": "image/tiff",
                "Content-Length": str(path.stat().st_size),
                "Cache-Control": "no-cache",
            },
        )
        answer = connection.getresponse()
        start_of_answer = answer.read(2000)
        while answer.read(1 << 20):
            pass
    seconds = time.perf_counter() - start
    connection.close()
    if answer.status != 200:
        raise LoadError(f"a scene of {side} px was answered with {answer.status}: {start_of_answer!r}")
    windows = ((side - 40) // stride + 1) ** 2
    return {
        "rss_mb": peak.mb,
        "rss_before_mb": before,
        "seconds": seconds,
        "windows": windows,
        "windows_per_s": windows / seconds,
    }


class PeakMemory:
    """The most resident memory (MB) of a server's processes while it is entered."""

    def __init__(self, server: Server) -> None:
        self.mb = 0.0
        self._server = server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, self._server.rss_mb())
            if self._done.wait(_SAMPLING_S):
                return
