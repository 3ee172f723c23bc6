"""What operators and tools ask: /model, /livez, /readyz, /metrics, and the documentation pages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from model import bands, tiles
from model.outputs import POOLINGS, shapes
from service.batcher import Batcher
from service.cache import Cache
from service.engine import Engine
from service.errors import UnavailableError
from service.http.openapi import PROBLEM_RESPONSE
from service.json_text import dumps
from service.settings import Settings
from service.stac_item import MEDIA_TYPE, stac_item
from service.system_schemas import Live, ModelInfo, Ready
from service.telemetry import metrics

router = APIRouter(tags=["system"])
metrics_router = APIRouter(tags=["system"])  # left out where metrics have a port of their own

# Everything comes from this process: the page works without the internet.
_DOCS = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>landmoe</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true,
  displayRequestDuration: true, validatorUrl: null});
</script>
</body>
</html>
"""


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """A person who opens the address finds the documentation."""
    return RedirectResponse("docs")


@router.head("/docs", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """Swagger UI."""
    return HTMLResponse(_DOCS)


@router.head("/model", include_in_schema=False, response_model=None)
@router.get(
    "/model",
    summary="What is served",
    operation_id="model",
    response_model=ModelInfo,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}, 422: PROBLEM_RESPONSE},
)
async def model(
    request: Request,
    form: Annotated[
        Literal["json", "stac"],
        Query(alias="format", description="stac: a STAC Item with the Machine Learning Model extension"),
    ] = "json",
) -> dict[str, Any] | Response:
    """The model: its name and digest, what it was trained on, what it takes and gives, and the limits."""
    engine: Engine = request.app.state.engine
    if form == "stac":
        probes = request.app.state.probes.described()
        item = stac_item(engine.bundle, engine.precision, probes, str(request.base_url))
        return Response(dumps(item), media_type=MEDIA_TYPE)
    settings: Settings = request.app.state.settings
    bundle = engine.bundle
    config, preprocessing = bundle.config, bundle.preprocessing
    sizes = shapes(config)
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "trained": bundle.trained,
        "precision": engine.precision,
        "provider": engine.provider,
        "runtime": engine.runtime,
        "kernels": engine.kernels,
        "dim": config.embed_dim,
        "num_tokens": config.num_tokens,
        "poolings": {name: sizes[name][-1] for name in POOLINGS},
        "bands": list(bands.BANDS),
        "statistics": {"mean": list(preprocessing.mean), "std": list(preprocessing.std)},
        "image_size": config.image_size,
        "gsd": tiles.GSD,
        "nodata_fill": preprocessing.nodata_fill,
        "hour_convention": preprocessing.hour_convention,
        "missing_metadata_trained": preprocessing.missing_metadata_trained,
        "config": config.to_dict(),
        "training": bundle.training,
        "metrics": bundle.metrics,
        "parity": bundle.parity,
        "limits": {
            "max_upload_bytes": settings.max_upload_bytes,
            "max_tiles": settings.max_tiles,
            "max_pixels": settings.max_pixels,
            "max_bands": settings.max_bands,
            "max_windows": settings.max_windows,
            "max_json_items": settings.max_json_items,
            "max_inflight_windows": settings.max_inflight_windows,
            "max_batch_size": request.app.state.batcher.max_batch_size,
            "queue_size": settings.queue_size,
            "request_timeout_s": settings.request_timeout_s,
        },
        "probes": request.app.state.probes.described(),
        "card": bundle.card,
    }


@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    summary="Is the process alive",
    operation_id="livez",
    response_model=Live,
    responses={503: PROBLEM_RESPONSE},
)
async def livez(request: Request) -> dict[str, str]:
    """200 as long as the process answers and can help itself; restart it when this fails."""
    batcher: Batcher = request.app.state.batcher
    if batcher.hopeless:
        raise UnavailableError(f"this process needs a restart: {batcher.reason}", "engine-failed")
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Are requests taken",
    operation_id="readyz",
    response_model=Ready,
    responses={503: PROBLEM_RESPONSE},
)
async def readyz(request: Request) -> dict[str, Any]:
    """200 while requests are taken; 503 with the reason while it drains or restarts its engine."""
    batcher: Batcher = request.app.state.batcher
    metrics.READY.set(batcher.healthy)
    if not batcher.healthy:
        raise UnavailableError(batcher.reason)
    cache: Cache = request.app.state.cache
    return {"status": "ready", "queue_depth_tiles": batcher.depth, "redis": cache.redis_state}


@metrics_router.head("/metrics", include_in_schema=False)
@metrics_router.get(
    "/metrics",
    summary="Prometheus metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def prometheus(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    metrics.READY.set(request.app.state.batcher.healthy)
    return Response(metrics.exposition(), media_type=metrics.MEDIA_TYPE)
