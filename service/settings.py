"""What an operator may set: environment variables with the prefix LANDMOE_, the unit in every name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LANDMOE_"

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]


class Settings(BaseSettings):
    """Every setting of the service with its default.

    The limits bound what one request may cost before any work is done for it.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    bundle: Path | str | None = Field(
        default=None, description="a folder or hf://owner/name[@revision]; the one in the package if unset"
    )
    precision: Literal["exact"] = Field(default="exact", description="exact = fp32")
    workers: int = Field(default=1, ge=1, le=256, description="processes; each has its own engine")
    log_level: LogLevel = "info"
    log_format: LogFormat = Field(default="auto", description="auto = console on a terminal, JSON elsewhere")

    engine_threads: int | None = Field(
        default=None, ge=1, description="threads of the engine; the CPU quota divided by the workers if unset"
    )
    # Two threads reach their best rate at about this batch (docs/performance.md); more only adds latency.
    max_batch_size: int = Field(default=32, ge=1, le=1024, description="tiles")
    max_queue_delay_ms: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="how long a batch that is not full waits for more",
    )
    queue_size: int = Field(default=1024, ge=1, description="tiles waiting for the engine; more are refused")
    request_timeout_s: float = Field(default=30, gt=0, description="from a request's arrival to its answer")
    shutdown_grace_s: int = Field(default=30, ge=0, description="for requests under way when told to stop")
    decode_threads: int | None = Field(default=None, ge=1, description="the CPU quota if unset")

    max_upload_mb: float = Field(default=64, gt=0, description="whole body of a request")
    max_tiles: int = Field(default=256, ge=1, description="tiles in a request")
    max_fields: int = Field(default=4096, ge=1, description="form fields in a request, tiles not counted")
    max_field_kb: float = Field(default=1024, gt=0, description="one form field")
    max_pixels: int = Field(default=64_000_000, ge=1600, description="px of a file, height x width")
    max_bands: int = Field(default=64, ge=7, description="bands of a file")
    # Finding the units takes up to twelve times this for a moment, in each decoding thread.
    max_decoded_mb: float = Field(default=64, gt=0, description="pixels of a file, decompressed")

    cache_mb: float = Field(default=64, ge=0, description="results kept in the process; 0 = none")

    @property
    def max_upload_bytes(self) -> int:
        """The limit of a request's body."""
        return int(self.max_upload_mb * 1_000_000)

    @property
    def cache_bytes(self) -> int:
        """The limit of the results kept in the process."""
        return int(self.cache_mb * 1_000_000)


class SettingsError(ValueError):
    """Settings that cannot be used: which, what came and what was expected, in one line."""


def load(**given: Any) -> Settings:
    """Settings from the environment, with what a command line gives on top.

    Raises:
        SettingsError: a value that cannot be used.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{str(e['loc'][0]).upper()} is {e['input']!r}: {e['msg'][0].lower()}{e['msg'][1:]}"
            for e in error.errors(include_url=False, include_context=False)
        )
        raise SettingsError(problems) from error
