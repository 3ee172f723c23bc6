"""What /embed and /classify have in common: a request for tiles, from its body to its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from starlette.responses import Response

from service import formats
from service.answer import Answer, check_format
from service.errors import code_of
from service.outcomes import Outcome, Tally
from service.parameters import ClassifyOptions, EmbedOptions, parse
from service.pipeline import Pipeline
from service.products import Product
from service.upload import receive

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
    pipeline: Pipeline = app.pipeline
    upload = await receive(request, app.settings, app.spool)
    parameters, options = parse(upload.values, len(upload.files), model)
    product = make_product(options)
    wanted = formats.negotiate(options.format, request.headers.get("accept"))
    check_format(wanted, grid=options.fit == "grid", sources=len(upload.files))
    bypass = "no-cache" in request.headers.get("cache-control", "").lower()
    tally = Tally(len(upload.files), count_cloudy=options.max_cloud_fraction is not None)
    answer = Answer(wanted, product, tally, app.spool, request.state.request_id)
    try:
        results, report = await pipeline.embed(
            upload.files, parameters, options, product.pooling, bypass=bypass
        )
        await answer.add([Outcome(index, result) for index, result in enumerate(results)])
        response = await answer.response(report)
    except BaseException:
        answer.close()
        raise
    if response.status_code >= 400:
        request.state.outcome = code_of(tally.failures[0][1])
    return response
