"""A FastAPI route that takes a body and does nothing: no application of FastAPI answers faster."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.get("/readyz")
async def ready() -> Response:
    """Whether it runs."""
    return Response()


@app.post("/embed")
async def embed(request: Request) -> Response:
    """Nothing."""
    await request.body()
    return Response()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
