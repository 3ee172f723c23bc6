"""What /embed and /classify have in common: a request for tiles, from its body to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request
from starlette.responses import Response

from service import formats
from service.answer import Answer, HopelessError, Whole, counts, named
from service.caching.whole_answers import WholeAnswers
from service.errors import DeadlineError, RequestError, code_of
from service.given_parameters import parse
from service.http.headers import listed
from service.http.links import follow, linked
from service.http.upload import Upload, receive
from service.outcomes import Outcome, Tally
from service.parameters import ClassifyOptions, EmbedOptions, Format, RequestOptions, TileParameters
from service.pipeline import Pipeline
from service.products import Product, reference
from service.results import Report
from service.routes.entry import enter
from service.scene_progress import ScenesUnderway
from service.settings import Settings
from service.telemetry import metrics

SUMMARY = "X-Summary"
_ANSWERED = metrics.TILES.labels("ok")

Options = TypeVar("Options", EmbedOptions, ClassifyOptions)


async def respond(
    request: Request, model: type[Options], make_product: Callable[[Options], Product]
) -> Response:
    """Receives files, has them computed and answers.

    Args:
        request: raw body or form.
        model: of the route's options.
        make_product: what is wanted of each tile, from the options.
    """
    app = request.app.state
    enter(request)
    upload = await receive(request, app.settings, app.spool)
    answers: WholeAnswers = app.pipeline.answers
    try:
        key = None if _bypass(request) else answers.key(request, upload.files)
        if key is not None and (again := _again(request, answers, key)) is not None:
            return again
        request.state.watch()
        parameters, options = parse(upload.values, len(upload.files), model)
        product = make_product(options)
        wanted = formats.negotiate(options.format, listed(request, b"accept"))
        _check(options, wanted, len(upload.files))
        fetch_s = 0.0
        if linked(upload):
            start = time.perf_counter()
            parameters = await _follow(request, upload, parameters)
            fetch_s = time.perf_counter() - start
        tally = Tally(len(upload.files), count_cloudy=options.max_cloud_fraction is not None)
        names = [(_id(said), file.source) for said, file in zip(parameters, upload.files, strict=True)]
        answer = Answer(wanted, product, tally, app.spool, request.state.request_id, names)
        compute = _scenes if options.fit == "grid" else _tiles
        try:
            report = await compute(request, upload, parameters, options, product, answer)
            if fetch_s:
                report.note("fetch", fetch_s)
            response = await answer.response(report)
        except BaseException:
            answer.close()
            raise
    finally:
        upload.close()
    if response.status_code >= 400:
        request.state.outcome = code_of(tally.failures[0][1])
    elif options.fit == "grid":  # some formats have no room for it
        response.headers[SUMMARY] = counts(tally.summary())
    elif key is not None and report.cache == "hit" and isinstance(response, Whole):
        answers.put(key, bytes(response.body), wanted, report.warned)
    return response


def _again(request: Request, answers: WholeAnswers, key: bytes) -> Response | None:
    """The answer to a request that came before."""
    start = time.perf_counter()
    if (found := answers.get(key)) is None:
        return None
    content, wanted, warned = found
    report = Report(warned=warned, model=named(reference(request.app.state.engine)))
    report.note("cache", time.perf_counter() - start)
    _ANSWERED.inc()
    return Whole(content, wanted, report)


async def _follow(
    request: Request, upload: Upload, parameters: list[TileParameters | RequestError]
) -> list[TileParameters | RequestError]:
    """Fetches what is linked to, in the time that the client allows for all, or may allow."""
    app, state = request.app.state, request.state
    start = time.perf_counter()
    allowed_s = state.timeout_s or app.settings.max_request_timeout_s
    try:
        async with asyncio.timeout(allowed_s):
            told = await follow(upload, parameters, app.fetcher, app.spool)
    except TimeoutError as error:
        raise DeadlineError(allowed_s) from error
    if state.timeout_s is not None:
        state.timeout_s = max(0.0, state.timeout_s - (time.perf_counter() - start))
    return told


async def _tiles(
    request: Request,
    upload: Upload,
    parameters: list[TileParameters | RequestError],
    options: RequestOptions,
    product: Product,
    answer: Answer,
) -> Report:
    pipeline: Pipeline = request.app.state.pipeline
    results, report = await pipeline.embed(
        upload.files,
        parameters,
        options,
        product.pooling,
        bypass=_bypass(request),
        timeout_s=request.state.timeout_s,
    )
    with contextlib.suppress(HopelessError):
        await answer.add([Outcome(index, result) for index, result in enumerate(results)])
    return report


async def _scenes(
    request: Request,
    upload: Upload,
    parameters: list[TileParameters | RequestError],
    options: RequestOptions,
    product: Product,
    answer: Answer,
) -> Report:
    pipeline: Pipeline = request.app.state.pipeline
    scenes = await pipeline.open_scenes(upload.files, parameters, options, request.app.state.spool)
    try:
        _check_windows(scenes.windows, answer.format, request.app.state.settings)
        answer.grid = scenes.shape
        underway: ScenesUnderway = request.app.state.scenes_underway
        with underway.request(request.state.request_id, scenes.windows) as progress:

            async def take(outcomes: Sequence[Outcome]) -> None:
                await answer.add(outcomes)
                progress.done += sum(outcome.row is not None for outcome in outcomes)

            return await scenes.embed(
                product.pooling, take, bypass=_bypass(request), timeout_s=request.state.timeout_s
            )
    except HopelessError:
        return Report()
    finally:
        scenes.close()


def _id(said: TileParameters | RequestError) -> str | None:
    return said.tile_id if isinstance(said, RequestError) else said.id


def _bypass(request: Request) -> bool:
    return "no-cache" in (listed(request, b"cache-control") or "").lower()


def _check(options: RequestOptions, wanted: Format, sources: int) -> None:
    """Refuses options that do not go together."""
    if options.stride is not None and options.fit != "grid":
        raise RequestError(
            "bad-parameter", f"stride is {options.stride} and fit is not grid; expected fit=grid"
        )
    if wanted.startswith("geotiff") and (options.fit != "grid" or sources != 1):
        came = f"{sources} files" if options.fit == "grid" else "no fit=grid"
        raise RequestError(
            "bad-parameter", f"format={wanted} came with {came}; expected one scene and fit=grid"
        )


def _check_windows(count: int, wanted: Format, settings: Settings) -> None:
    if count > settings.max_windows:
        raise RequestError(
            "too-large",
            f"{count:,} windows came; expected at most {settings.max_windows:,} (LANDMOE_MAX_WINDOWS): send "
            "a larger stride, or parts of the scene",
        )
    if wanted in ("json", "base64", "geojson") and count > settings.max_json_items:
        raise RequestError(
            "too-large",
            f"{count:,} windows came; at most {settings.max_json_items:,} are answered as {wanted} "
            "(LANDMOE_MAX_JSON_ITEMS): send format=parquet, which takes them all",
        )
