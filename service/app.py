"""The application: lifespan, routers, handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from service.batcher import Batcher
from service.batching import cpu
from service.cache import Cache, make_cache
from service.encoder_engine import make_engine
from service.engine import Engine
from service.errors import (
    TILE_ERRORS,
    ServiceError,
    code_of,
    code_of_status,
    problem,
    problem_of_status,
    problem_response,
)
from service.http import api_keys, openapi
from service.http.allowed_hosts import AllowedHosts
from service.http.connections import Connections
from service.http.cors import Cors
from service.http.fetch import Fetcher
from service.http.guard import EXPOSED, Guard
from service.http.middleware import Observed
from service.http.spool import Spool
from service.pipeline import Pipeline
from service.products import Probes
from service.routes import classify, embed, progress, system
from service.routes.shortcut import Shortcut
from service.scene_progress import ScenesUnderway
from service.settings import Settings
from service.telemetry import metrics
from service.telemetry.vital_signs import VitalSigns

log = structlog.get_logger()

VERSION = metadata.version("landmoe")
DESCRIPTION = """Landsat GeoTIFF tiles in, embeddings out.

A tile has the seven surface-reflectance bands SR_B1 to SR_B7 of Landsat 8/9, Collection 2 Level 2, at 30 m.
The network sees 40 x 40 px of it, when it was taken, and where.
Errors are `application/problem+json` (RFC 9457).
"""


def create_app(
    settings: Settings | None = None, engine: Engine | None = None, cache: Cache | None = None
) -> FastAPI:
    """Makes the application.

    Args:
        settings: read from the environment if None.
        engine: what computes embeddings; made from the settings' bundle at start-up if None.
        cache: of results; the settings' if None.

    Raises:
        ApiKeyError: the settings' API keys cannot be used.
    """
    settings = Settings() if settings is None else settings
    keys = api_keys.load(settings.api_keys, settings.api_keys_file)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = make_engine(settings) if engine is None else engine
        decode_threads = settings.decode_threads or cpu.available()
        batcher = Batcher(
            running,
            max_batch_size=settings.max_batch_size or running.batch_size,
            queue_size=settings.queue_size,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            timeout_s=settings.request_timeout_s,
            engine_timeout_s=settings.engine_timeout_s,
            preparers=decode_threads,
        )
        store = make_cache(settings) if cache is None else cache
        pipeline = Pipeline(settings, running, batcher, store, decode_threads)
        app.state.settings, app.state.engine = settings, running
        app.state.probes = Probes(running.bundle)
        app.state.spool = Spool(settings.spool_dir, settings.spool_memory_bytes, settings.max_spool_bytes)
        app.state.spool.prepare()
        app.state.scenes_underway = ScenesUnderway()
        fetcher = app.state.fetcher = Fetcher(
            AllowedHosts(settings.fetch_hosts),
            timeout_s=settings.fetch_timeout_s,
            max_bytes=settings.max_upload_bytes,
            admit=batcher.check,
        )
        app.state.batcher, app.state.pipeline, app.state.cache = batcher, pipeline, store
        metrics.QUEUE_SIZE.set(settings.queue_size)
        metrics.set_model(running.bundle, running.precision, running.provider)
        vital_signs = VitalSigns(lambda: batcher.healthy)
        try:
            await pipeline.warm_up()
            await batcher.start()
            await store.start()
            vital_signs.start()
            bundle = running.bundle
            log.info(
                "ready",
                model=bundle.name,
                version=bundle.version,
                digest=bundle.digest,
                trained=bundle.trained,
                precision=running.precision,
                runtime=running.runtime,
                kernels=running.kernels,
            )
            yield
        finally:  # also of a start that failed half-way, or was cancelled
            vital_signs.stop()
            try:
                await batcher.drain()
            finally:
                pipeline.close()
                await store.close()
                await fetcher.close()

    app = FastAPI(
        title="landmoe",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Spans and metrics are our own (telemetry/): the framework's would say the same again.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # FastAPI's own way to do it
    app.openapi = lambda: openapi.document(app, keyed=bool(keys))  # type: ignore[method-assign]
    app.include_router(embed.router)
    app.include_router(classify.router)
    app.include_router(progress.router)
    app.include_router(system.router)
    if settings.metrics_port is None:
        app.include_router(system.metrics_router)
    app.mount("/docs/assets", StaticFiles(directory=swagger_ui_path), name="assets")
    for error in (ServiceError, *TILE_ERRORS):
        app.add_exception_handler(error, _answer_typed)
    app.add_exception_handler(HTTPException, _answer_framework)
    app.add_exception_handler(RequestValidationError, _answer_framework)
    origins = settings.allowed_origins
    app.add_middleware(
        Shortcut,
        routes=[*embed.router.routes, *classify.router.routes],
        errors=(ServiceError, *TILE_ERRORS),
        answer_error=_answer_typed,
    )
    app.add_middleware(Connections)
    app.add_middleware(Guard, keys=keys, body_timeout_s=settings.body_timeout_s, allow_origins=bool(origins))
    if origins:
        app.add_middleware(
            Cors,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(Observed)
    return app


async def _answer_typed(request: Request, error: Exception) -> Response:
    code = request.state.outcome = code_of(error)
    headers = error.headers if isinstance(error, ServiceError) else None
    return problem_response(problem(code, str(error), request.state.request_id), headers)


def _refused(error: dict[str, Any]) -> str:
    name = error["loc"][-1]
    if error["type"] == "missing":
        return f"{name} did not come; expected it in the {error['loc'][0]}"
    return f"{name} is {str(error['input'])[:100]!r}: {error['msg']}"


async def _answer_framework(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: paths, methods, bodies."""
    status, detail, headers = 422, str(error), None
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
        detail = f"{request.method} {request.url.path}: {error.detail}"
        if allowed := Headers(headers).get("allow"):
            # HEAD has a route of its own wherever GET has one; the framework names the first route's methods.
            methods = ["GET", "HEAD"] if allowed == "GET" else sorted(allowed.split(", "))
            headers = {"Allow": ", ".join(methods)}
            detail += f"; expected {' or '.join(methods)}"
    elif isinstance(error, RequestValidationError):
        detail = "; ".join(map(_refused, error.errors()))
    code = "bad-parameter" if status == 422 else code_of_status(status)
    request.state.outcome = code or "error"
    request_id = request.state.request_id
    body = problem(code, detail, request_id) if code else problem_of_status(status, detail, request_id)
    return problem_response(body, headers)
