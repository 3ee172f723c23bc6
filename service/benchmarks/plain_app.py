"""What one writes without landmoe: FastAPI, rasterio, pyproj and ONNX Runtime, one tile after the other.

The same encoder, no batching, no cache, no limits, every library with its defaults: the service's baseline.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.io import MemoryFile

from model import metadata
from model.config import SIZES

_SIDE = SIZES["S"].image_size


def read(content: bytes) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """A GeoTIFF's pixels around its centre, (7, 40, 40), and the encoding (4, 2) of where that is."""
    with MemoryFile(content) as memory, memory.open() as file:
        pixels = file.read()
        left, bottom, right, top = file.bounds
        to_degrees = Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    row, column = ((side - _SIDE) // 2 for side in pixels.shape[1:])
    tile = pixels[:, row : row + _SIDE, column : column + _SIDE]
    return tile, metadata.encode(None, lat, lon)


def create(encoder: str) -> FastAPI:
    """The application around an ONNX file."""
    app = FastAPI()
    session = ort.InferenceSession(encoder, providers=["CPUExecutionProvider"])

    def embed(content: bytes) -> list[float]:
        tile, encoding = read(content)
        mean = session.run(["mean"], {"dn": tile[None], "metadata": encoding[None]})[0]
        return mean[0].tolist()  # type: ignore[no-any-return]

    @app.get("/readyz")
    async def ready() -> Response:
        return Response()

    @app.post("/embed")
    async def embed_files(request: Request) -> dict[str, Any]:
        if request.headers["content-type"].startswith("multipart/form-data"):
            async with request.form() as form:
                files = [await file.read() for file in form.getlist("tile") if not isinstance(file, str)]
        else:
            files = [await request.body()]
        return {"data": [{"embedding": await run_in_threadpool(embed, file)} for file in files]}

    return app


if __name__ == "__main__":
    uvicorn.run(create(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
