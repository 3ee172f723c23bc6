"""POST /embed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.openapi import EMBED_OPERATION
from service.parameters import EmbedOptions
from service.products import Embeddings
from service.routes.tiles import respond
from service.schemas import EmbedResponse

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
    engine = request.app.state.engine
    return await respond(request, EmbedOptions, lambda options: Embeddings(engine, options))
