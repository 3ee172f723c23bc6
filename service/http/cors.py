"""Which pages of other origins may ask (CORS), refused as everything else is."""

from __future__ import annotations

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from service.errors import problem_of_status, problem_response

_METHOD = "access-control-request-method"


class Cors(CORSMiddleware):
    """Starlette's middleware, whose refusals are problem objects."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether it may ask."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        came = bytes(answer.body).decode().replace("Disallowed CORS", "not allowed here:")
        asked = f"{request_headers.get('origin', '')[:100]!r} would {request_headers.get(_METHOD, '')[:20]!r}"
        detail = f"{asked}, {came}; expected an origin of LANDMOE_CORS_ORIGINS that asks with GET or POST"
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        return problem_response(problem_of_status(answer.status_code, detail, request_id), kept)
