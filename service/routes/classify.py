"""POST /classify."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.openapi import CLASSIFY_OPERATION
from service.parameters import ClassifyOptions
from service.products import Predictions
from service.routes.tiles import respond
from service.schemas import ClassifyResponse

router = APIRouter(tags=["predictions"])


@router.post(
    "/classify",
    summary="Classify Landsat tiles",
    operation_id="classify",
    response_model=None,
    openapi_extra=CLASSIFY_OPERATION,
    responses={200: {"model": ClassifyResponse, "description": "Predictions for each tile"}},
)
async def classify(request: Request) -> Response:
    """GeoTIFFs in, the predictions of one of the model's probes for each out.

    Files and parameters are sent as to `/embed`. `GET /model` lists the probes with their labels.
    """
    app = request.app.state
    return await respond(
        request, ClassifyOptions, lambda options: Predictions(app.engine, app.probes, options)
    )
