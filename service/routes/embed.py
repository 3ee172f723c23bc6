"""POST /embed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service import formats, metrics
from service.engine import Engine
from service.errors import PROBLEMS, code_of, problem, problem_response
from service.openapi import EMBED_OPERATION
from service.parameters import EmbedOptions, parse
from service.pipeline import Embedded, Pipeline, Report
from service.schemas import EmbedResponse
from service.upload import receive

router = APIRouter(tags=["embeddings"])


@router.post(
    "/embed",
    summary="Embed Landsat tiles",
    operation_id="embed",
    response_model=None,
    openapi_extra=EMBED_OPERATION,
    responses={200: {"model": EmbedResponse, "description": "An embedding for each tile"}},
)
async def embed(request: Request) -> Response:
    """GeoTIFFs in, one embedding for each out.

    Send a file as the body (`image/tiff`) with parameters in the query, or one or more `tile` parts of a form
    with parameters as fields. A blank field counts as missing. `Cache-Control: no-cache` computes afresh.
    """
    app = request.app.state
    pipeline: Pipeline = app.pipeline
    upload = await receive(request, app.settings)
    parameters, options = parse(upload.values, len(upload.files), EmbedOptions)
    chosen = formats.negotiate(options.format, request.headers.get("accept"))
    bypass = "no-cache" in request.headers.get("cache-control", "").lower()
    results, report = await pipeline.embed(upload.files, parameters, options, bypass=bypass)

    start = time.perf_counter()
    for result in results:
        outcome = code_of(result) if isinstance(result, Exception) else "ok"
        metrics.TILES.labels(outcome).inc()
    if not any(isinstance(result, Embedded) for result in results) or (
        chosen == "npy" and any(isinstance(result, Exception) for result in results)
    ):
        return _all_failed(request, results)
    if chosen == "npy":
        answer = formats.to_npy([r for r in results if isinstance(r, Embedded)], options.normalize)
    else:
        items = [_item(i, r, options.normalize, request.state.request_id) for i, r in enumerate(results)]
        answer = formats.to_json(
            _head(app.engine, options), items, _summary(results), as_base64=chosen == "base64"
        )
    report.stages["format"] = time.perf_counter() - start
    metrics.STAGES["format"].observe(report.stages["format"])
    return Response(answer.content, media_type=answer.media_type, headers=_headers(report))


def _head(engine: Engine, options: EmbedOptions) -> dict[str, Any]:
    bundle = engine.bundle
    return {
        "model": {
            "name": bundle.name,
            "version": bundle.version,
            "digest": bundle.digest,
            "precision": engine.precision,
        },
        "pooling": options.pooling,
        "dim": bundle.config.embed_dim * (2 if options.pooling == "patch_mean_std" else 1),
    }


def _item(index: int, result: Embedded | Exception, normalize: bool, request_id: str) -> dict[str, Any]:
    if isinstance(result, Exception):
        return {"index": index, "error": problem(code_of(result), str(result), request_id)}
    fields = result.tile.fields
    return {
        "index": index,
        "id": fields["id"] or str(index),
        "source": fields["source"],
        "embedding": formats.l2_normalized(result.values) if normalize else result.values,
        **{name: value for name, value in fields.items() if name not in ("id", "source", "warnings")},
        "cached": result.cached,
        "warnings": fields["warnings"],
    }


def _summary(results: Sequence[Embedded | Exception]) -> dict[str, int]:
    failed = sum(isinstance(result, Exception) for result in results)
    return {
        "tiles": len(results),
        "windows": len(results),  # one for each tile, as long as there is no grid
        "embedded": len(results) - failed,
        "skipped_empty": 0,
        "failed": failed,
    }


def _all_failed(request: Request, results: Sequence[Embedded | Exception]) -> Response:
    """The first failure's problem, with all of them listed."""
    failures = [(i, result) for i, result in enumerate(results) if isinstance(result, Exception)]
    bodies = [problem(code_of(error), str(error), request.state.request_id) for _, error in failures]
    first = bodies[0]
    first["errors"] = [
        {"index": i, **{key: body[key] for key in ("type", "status", "detail")}}
        for (i, _), body in zip(failures, bodies, strict=True)
    ]
    code = code_of(failures[0][1])
    request.state.outcome = code
    retry = {"Retry-After": "1"} if PROBLEMS[code].status == 503 else None
    return problem_response(first, retry)


def _headers(report: Report) -> dict[str, str]:
    timing = ", ".join(f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in report.stages.items())
    # Batch size 0: everything came from the cache.
    return {"Server-Timing": timing, "X-Cache": report.cache, "X-Batch-Size": str(report.batch_size)}
