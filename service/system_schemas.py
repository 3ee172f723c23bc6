"""The shapes of what operators and tools ask: the model, its limits, health and progress."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from model.outputs import Pooling
from service.schemas import Schema


class ProbeInfo(Schema):
    """A classifier on embeddings."""

    name: str
    task: Literal["multi-label", "multi-class"]
    pooling: Pooling
    labels: list[str]
    threshold: float | None = Field(description="default for `selected`; multi-label")
    calibrated: bool
    metrics: dict[str, Any]


class Limits(Schema):
    """What one request may be, and how many may wait."""

    max_upload_bytes: int
    max_tiles: int
    max_pixels: int
    max_bands: int
    max_windows: int
    max_json_items: int
    max_inflight_windows: int
    max_batch_size: int
    queue_size: int
    request_timeout_s: float


class BandStatistics(Schema):
    """Per-band mean and standard deviation (DN) of the z-score inside the network."""

    mean: list[float]
    std: list[float]


class Poolings(Schema):
    """Length of an embedding for each pooling; of one token for `tokens`."""

    mean: int
    cls: int
    patch_mean: int
    patch_mean_std: int
    tokens: int


class ModelInfo(Schema):
    """What is served."""

    name: str
    version: str
    digest: str
    trained: bool = Field(description="false: the weights are random, and embeddings carry no meaning")
    precision: str
    provider: str
    runtime: str = Field(description="what computes: landmoe's own kernels, onnxruntime or openvino")
    kernels: str | None = Field(
        description="which of landmoe's kernels: fp32 (AVX-512), avx2, bf16 or amx; null for others"
    )
    dim: int
    num_tokens: int
    poolings: Poolings
    bands: list[str]
    statistics: BandStatistics
    image_size: int = Field(description="px, a side")
    gsd: float = Field(description="m, of the tiles it was trained on")
    nodata_fill: str
    hour_convention: str
    missing_metadata_trained: bool
    config: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]
    limits: Limits
    probes: list[ProbeInfo]
    card: str


class SceneProgress(Schema):
    """How far a request is."""

    windows: int = Field(description="of all its scenes, empty ones included")
    done: int = Field(description="windows that are computed, left out or failed")


class Live(Schema):
    """The process answers."""

    status: Literal["ok"]


class Ready(Schema):
    """Whether requests are taken."""

    status: Literal["ready"]
    queue_depth_tiles: int
    redis: Literal["off", "ok", "unavailable", "refuses-writes"] = Field(
        description="how the shared cache does; requests are answered without it, too"
    )
