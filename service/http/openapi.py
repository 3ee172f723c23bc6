"""The OpenAPI document, in version 3.0: the Swagger UI that ships with the service reads no later one."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from model.bands import BANDS
from service.errors import PROBLEM_MEDIA_TYPE, PROBLEMS
from service.files import MTL_PART, QA_PART
from service.formats import KINDS
from service.http import deadline
from service.http.guard import API_KEY, is_open
from service.http.middleware import REQUEST_ID
from service.parameters import METADATA, ClassifyOptions, EmbedOptions, TileParameters

_PROBLEM_REF = {"$ref": "#/components/schemas/ProblemModel"}
PROBLEM_RESPONSE: dict[str, Any] = {
    "description": "A problem, RFC 9457",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": _PROBLEM_REF}},
}
_FEATURES: dict[str, Any] = {
    "type": "object",
    "description": "a FeatureCollection (RFC 7946); items as in JSON are the features' properties",
    "required": ["type", "features", "summary"],
    "properties": {
        "type": {"type": "string", "enum": ["FeatureCollection"]},
        "features": {"type": "array", "items": {"type": "object"}},
        "summary": {"type": "object"},
    },
}
_FILE = {"type": "string", "format": "binary"}
_DELIVERY = {
    name: _FILE | {"description": f"instead of `tile`: {text} of a Landsat product as it is delivered"}
    for name, text in {
        **{band: f"the file {band}" for band in BANDS},
        QA_PART: "the file QA_PIXEL, if there,",
        MTL_PART: "the file MTL (.txt, .xml or .json), if there,",
    }.items()
}
_METADATA = {
    "type": "string",
    "description": "instead of the fields from `id` to `datetime_source`, which are said of all tiles: "
    "a JSON array with one object of them for each tile, such as "
    '`[{"id": "a", "datetime": "2024-07-01"}, {}]`',
}
_HEADERS = {
    "X-Request-ID": "taken over from the request, or made",
    "Server-Timing": "milliseconds of decode, cache, queue, inference and format",
    "X-Cache": "hit, miss or bypass",
    "X-Batch-Size": "tiles that were computed together; 0 where all came from the cache",
    "X-Model": "what computed: digest=9544ca..., precision=fp32",
    "X-Summary": "with fit=grid: counts, as the answer's summary: tiles=1, windows=625, embedded=600, ...",
    "X-Warnings": "how many results have a warning, by its code, if any: cloudy=20, unusual-pixel-size=625",
}

_RETRY_AFTER = {
    "Retry-After": {
        "description": "seconds after which to send the request again",
        "schema": {"type": "integer"},
    }
}


def document(app: FastAPI, *, keyed: bool = False) -> dict[str, Any]:
    """The document of an application, made once.

    Args:
        app: whose routes are documented.
        keyed: whether it has API keys; then each operation says whether it asks for one.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.0.3",
            summary=None,
            description=app.description,
            routes=app.routes,
        )
        if keyed:
            _ask_for_key(schema)
        app.openapi_schema = _as_3_0(schema)
    return app.openapi_schema


def _ask_for_key(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = {"ApiKey": {"type": "apiKey", "in": "header", "name": API_KEY}}
    for path, operations in schema["paths"].items():
        for operation in operations.values() if not is_open(path) else ():
            operation["security"] = [{"ApiKey": []}]
            operation["responses"]["401"] = _described(401)


def _as_3_0(node: Any) -> Any:
    """JSON Schema as pydantic writes it (2020-12) → OpenAPI 3.0: `nullable`, one `example`, no `const`."""
    if isinstance(node, list):
        return [_as_3_0(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _as_3_0(value) for key, value in node.items() if key != "example"} | (
        {"example": node["example"]} if "example" in node else {}
    )
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        del node["anyOf"]
        if len(rest) > 1:
            node["anyOf"] = rest
        elif "$ref" in rest[0]:  # siblings of a reference are ignored
            node["allOf"] = rest
        else:
            node = rest[0] | node
        node["nullable"] = True
    if isinstance(node.get("examples"), list):
        node["example"] = node.pop("examples")[0]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    return node


_ID_PARAMETER = {
    "name": REQUEST_ID,
    "in": "header",
    "required": False,
    "description": "a name for the request, which the answer and the log repeat and `/progress` takes: up to "
    "128 letters, digits and `._:/+=-`, the first a letter or digit. Without one, or with another, one is "
    "made.",
    "schema": {"type": "string"},
}
_TIMEOUT_PARAMETER = {
    "name": deadline.HEADER,
    "in": "header",
    "required": False,
    "description": "milliseconds from the request's body to its answer; later, the answer is 504 and nothing "
    "more is computed. Without it the service decides, by the number of tiles.",
    "schema": {"type": "integer", "minimum": 1},
}


def _properties(model: type[BaseModel]) -> dict[str, Any]:
    """Properties as form fields and query parameters have them.

    Never null, and without a default, since Swagger UI would fill it in and send it.
    """
    found: dict[str, Any] = {}
    for name, schema in _as_3_0(model.model_json_schema())["properties"].items():
        found[name] = {k: v for k, v in schema.items() if k not in ("title", "default", "nullable")}
        if schema.get("default") is not None:
            default = str(schema["default"]).lower()
            found[name]["description"] = f"{schema['description']} (default `{default}`)"
    return found


def _operation(options: type[BaseModel]) -> dict[str, Any]:
    """What FastAPI cannot know of a route that reads its body itself."""
    fields = _properties(TileParameters) | _properties(options)
    tiles = {
        "type": "array",
        "items": _FILE,
        "description": "GeoTIFFs with the seven bands SR_B1 to SR_B7, a part for each (on the page, *Add "
        "string item* has room for one more). Where the operator allows hosts, these and the parts of a "
        "delivery may also be texts: the files' URLs",
        "example": [""],  # the page begins with a field for one file
    }
    form = {
        "type": "object",
        "properties": {"tile": tiles} | _DELIVERY | {METADATA: _METADATA} | fields,
    }
    statuses = sorted({row.status for row in PROBLEMS.values()} - {404, 405, 500})
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": f"as the form's field `{name}`; for a body of image/tiff",
                "schema": {k: v for k, v in schema.items() if k != "description"},
            }
            for name, schema in fields.items()
        ]
        + [_ID_PARAMETER, _TIMEOUT_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "image/tiff": {"schema": _FILE}},
        },
        "responses": {
            "200": {
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}}
                    for name, text in _HEADERS.items()
                },
                "content": {
                    kind.media_type.split(";")[0]: {"schema": _FEATURES if name == "geojson" else _FILE}
                    for name, kind in KINDS.items()
                    if name not in ("json", "base64") and name in _formats(options)
                },
            },
            **{str(status): _described(status) for status in statuses},
        },
    }


def _formats(options: type[BaseModel]) -> list[str]:
    """The values of `format` that a route has."""
    found: list[str] = _properties(options)["format"]["enum"]
    return found


def _described(status: int) -> dict[str, Any]:
    kinds = [f"`{code}`: {row.title}" for code, row in PROBLEMS.items() if row.status == status]
    found = PROBLEM_RESPONSE | {"description": "; ".join(kinds)}
    return found | {"headers": _RETRY_AFTER} if status in (429, 503) else found


EMBED_OPERATION = _operation(EmbedOptions)
CLASSIFY_OPERATION = _operation(ClassifyOptions)
