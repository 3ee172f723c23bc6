"""What is served as a STAC Item with the Machine Learning Model extension, for a catalogue of models.

STAC 1.1.0 (https://stacspec.org), MLM 1.4.0 (https://stac-extensions.github.io/mlm/v1.4.0/schema.json).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from model.bands import BANDS, COMMON_NAMES, DN_OFFSET, DN_SCALE
from model.bundle import Bundle
from model.config import NUM_METADATA_TOKENS
from model.outputs import POOLINGS, shapes

MEDIA_TYPE = "application/geo+json"
_EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
]
# Of tiles from anywhere that Landsat sees, since the first satellite whose bands the network knows.
_BOX = [-180.0, -90.0, 180.0, 90.0]
_SINCE = "2013-02-11T00:00:00Z"  # launch of Landsat 8
_FOR_EVER = "9999-12-31T23:59:59Z"


def stac_item(
    bundle: Bundle, precision: str, probes: Sequence[Mapping[str, Any]], url: str
) -> dict[str, Any]:
    """The Item.

    Args:
        bundle: that is served.
        precision: of what runs, such as fp32.
        probes: as GET /model lists them.
        url: of the service, ending with a slash.

    Returns:
        A GeoJSON Feature. Its inputs are what the encoder takes, which the service makes of a GeoTIFF; the
        z-score is part of the network, so nothing is left to scale.
    """
    config, sizes = bundle.config, shapes(bundle.config)
    west, south, east, north = _BOX
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    name = re.sub(r"[^a-zA-Z0-9_.-]", "-", bundle.name)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": f"{name}-{bundle.digest[:12]}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": _BOX,
        "properties": {
            "title": f"{bundle.name} {bundle.version}",
            "description": bundle.card,
            "datetime": None,
            "start_datetime": _SINCE,
            "end_datetime": _FOR_EVER,
            "version": bundle.version,
            "bands": [
                {"name": band, "eo:common_name": common, "data_type": "uint16", "unit": _UNIT}
                for band, common in zip(BANDS, COMMON_NAMES, strict=True)
            ],
            "mlm:name": name,
            "mlm:architecture": "Metadata-aware mixture-of-experts masked autoencoder (encoder)",
            "mlm:framework": "ONNX",
            "mlm:tasks": ["similarity-search", *(["scene-classification"] if probes else [])],
            "mlm:pretrained": bundle.trained,
            **({} if bundle.trained else {"mlm:pretrained_source": None}),
            "mlm:hyperparameters": {**config.to_dict(), "precision": precision},
            "mlm:input": [
                _input(
                    "tile",
                    list(BANDS),
                    [-1, config.in_channels, config.image_size, config.image_size],
                    ["batch", "channel", "height", "width"],
                    "uint16",
                ),
                _input(
                    "week, hour, latitude, longitude as sine and cosine",
                    [],
                    [-1, NUM_METADATA_TOKENS, 2],
                    ["batch", "token", "encoding"],
                    "float32",
                ),
            ],
            "mlm:output": [
                *(_embeddings(p, *sizes[p]) for p in POOLINGS if p != "tokens"),
                *(_predictions(probe) for probe in probes),
            ],
        },
        "assets": {
            "embed": _asset(url, "embed", "POST a GeoTIFF, get its embedding"),
            **({"classify": _asset(url, "classify", "POST a GeoTIFF, get its labels")} if probes else {}),
        },
        "links": [
            {"rel": "self", "href": f"{url}model?format=stac", "type": MEDIA_TYPE},
            {"rel": "about", "href": "https://arxiv.org/abs/2509.10919", "type": "text/html"},
            {"rel": "service-desc", "href": f"{url}openapi.json", "type": "application/json"},
        ],
    }


_UNIT = f"Collection 2 Level 2 DN: reflectance = DN * {DN_SCALE:g} - {-DN_OFFSET:g}"


def _input(name: str, bands: list[str], shape: list[int], order: list[str], data_type: str) -> dict[str, Any]:
    structure = {"shape": shape, "dim_order": order, "data_type": data_type}
    return {"name": name, "bands": bands, "input": structure, "value_scaling": None, "resize_type": None}


def _embeddings(pooling: str, size: int) -> dict[str, Any]:
    result = {"shape": [-1, size], "dim_order": ["batch", "embedding"], "data_type": "float32"}
    return {"name": pooling, "tasks": ["similarity-search"], "result": result}


def _predictions(probe: Mapping[str, Any]) -> dict[str, Any]:
    labels: Sequence[str] = probe["labels"]
    result = {"shape": [-1, len(labels)], "dim_order": ["batch", "class"], "data_type": "float32"}
    classes = [
        {"value": i, "name": re.sub(r"[^0-9A-Za-z_-]+", "-", label), "title": label, "description": label}
        for i, label in enumerate(labels)
    ]
    return {
        "name": probe["name"],
        "description": f"{probe['task']}, on the embedding {probe['pooling']}",
        "tasks": ["scene-classification"],
        "result": result,
        "classification:classes": classes,
    }


def _asset(url: str, route: str, title: str) -> dict[str, Any]:
    return {"href": f"{url}{route}", "title": title, "type": "application/json", "roles": ["mlm:model"]}
