"""GET /progress: how far a request with scenes is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.errors import ServiceError
from service.http.openapi import PROBLEM_RESPONSE
from service.scene_progress import ScenesUnderway
from service.system_schemas import SceneProgress

router = APIRouter(tags=["system"])


@router.head("/progress", include_in_schema=False, response_model=None)
@router.get(
    "/progress",
    summary="How far a request with scenes is",
    operation_id="progress",
    response_model=SceneProgress,
    responses={404: PROBLEM_RESPONSE, 422: PROBLEM_RESPONSE},
)
async def progress(
    request: Request,
    request_id: Annotated[str, Query(description="the `X-Request-ID` that the request was sent with")],
) -> dict[str, int]:
    """Windows of a request with `fit=grid`, from when its files have been opened until it is answered.

    Of several worker processes each knows its own requests only.
    """
    scenes: ScenesUnderway = request.app.state.scenes_underway
    try:
        found = scenes[request_id]
    except KeyError:
        raise ServiceError(
            "not-found",
            f"no scene of a request {request_id[:128]!r} is under way in this process; expected the "
            "X-Request-ID of one that has begun and is not answered yet",
        ) from None
    return {"windows": found.windows, "done": found.done}
