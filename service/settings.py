"""What an operator may set: environment variables with the prefix LANDMOE_, the unit in every name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LANDMOE_"
_ALIKE = 0.85  # of 1: one or two letters differ. Orchestrators set variables with our prefix, too

# It is compared as a text: with anything more it would never match.
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\sA-Z/?#@*]+")

# Beyond that nothing is meant, and some of it no clock can wait for and no integer count.
_Size = Annotated[float, Field(le=10**9)]
_Count = Annotated[int, Field(le=10**9)]
_Seconds = Annotated[float, Field(le=86_400)]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]


class Settings(BaseSettings):
    """Every setting of the service with its default.

    The limits bound what one request may cost before any work is done for it.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    bundle: Path | str | None = Field(
        default=None, description="a folder or hf://owner/name[@revision]; the one in the package if unset"
    )
    precision: Literal["exact", "fast"] = Field(
        default="exact",
        description="exact = fp32; fast = fp16 on CUDA where the bundle has it, bf16 on CPUs that have it",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto = CUDA where it works")
    kernels: bool = Field(
        default=True,
        description="landmoe's own kernels where the CPU has AVX2 (for bf16: AVX-512 with BF16); "
        "else ONNX Runtime, OpenVINO for bf16",
    )
    workers: int = Field(default=1, ge=1, le=256, description="processes; each has its own engine")
    log_level: LogLevel = "info"
    log_format: LogFormat = Field(default="auto", description="auto = console on a terminal, JSON elsewhere")

    engine_threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="threads of the engine; the CPU quota divided by the workers if unset",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="tiles in a batch of one worker; 16 on a CPU, 64 on a GPU if unset",
    )
    max_queue_delay_ms: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="how long a batch that is not full waits for more",
    )
    queue_size: _Count = Field(
        default=1024, ge=1, description="tiles being prepared or waiting for the engine; more are refused"
    )
    engine_timeout_s: _Seconds = Field(
        default=20, gt=0, description="after which a batch that has not come back is given up as hung"
    )
    request_timeout_s: _Seconds = Field(
        default=30, gt=0, description="from a request's body to its answer ..."
    )
    # A CPU core embeds a tile in 2.5 to 10 ms, by what computes; a fifth of the slowest must do.
    request_timeout_per_tile_ms: _Size = Field(default=50, ge=0, description="... and for each of its tiles")
    max_request_timeout_s: _Seconds = Field(
        default=300, gt=0, description="the most that X-Timeout-Ms may ask for"
    )
    shutdown_grace_s: int = Field(
        default=30, ge=0, le=86_400, description="for requests under way when told to stop"
    )
    shutdown_delay_s: float = Field(
        default=0,
        ge=0,
        le=300,
        description="how long requests are still taken after it was told to stop, while /readyz says 503",
    )
    decode_threads: int | None = Field(default=None, ge=1, le=1024, description="the CPU quota if unset")

    max_upload_mb: _Size = Field(
        default=2000, gt=0, description="whole body of a request; 8,000 x 8,000 px of float32 are 1,792"
    )
    max_tiles: _Count = Field(default=256, ge=1, description="tiles in a request")
    max_fields: _Count = Field(default=4096, ge=1, description="form fields in a request, tiles not counted")
    max_field_kb: _Size = Field(default=1024, gt=0, description="one form field")
    max_pixels: int = Field(
        default=100_000_000, ge=1600, le=10**12, description="px of a file, height x width"
    )
    max_bands: _Count = Field(default=64, ge=7, description="bands of a file")
    # Finding the units takes up to twelve times this for a moment, in each decoding thread.
    max_decoded_mb: _Size = Field(
        default=64, gt=0, description="pixels of a file that is not read as a grid, decompressed"
    )

    body_timeout_s: float = Field(
        default=20, gt=0, le=600, description="of silence while a body is read; on average 1 kB/s must come"
    )
    header_timeout_s: float = Field(
        default=15, gt=0, le=600, description="from a new connection to the end of a request's headers"
    )
    api_keys: str | None = Field(
        default=None, repr=False, description="let in, separated by commas, in X-API-Key; everyone if unset"
    )
    api_keys_file: Path | None = Field(default=None, description="more of them, one on each line")
    cors_origins: str | None = Field(
        default=None,
        description="whose pages may ask, separated by commas, such as https://example.org; * = all",
    )
    fetch_hosts: str | None = Field(
        default=None,
        description="whose files requests may name by URL, separated by commas: data.example.org, or "
        "*.example.org for all below; none if unset",
    )
    fetch_timeout_s: float = Field(default=60, gt=0, le=3600, description="for one of them")
    tracing: bool = Field(
        default=False, description="OpenTelemetry spans, sent as OTEL_ variables say; needs landmoe[otel]"
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="/metrics there instead of beside the service"
    )

    max_strip_mb: _Size = Field(
        default=256, gt=0, description="rows of a scene that are read at once, decompressed"
    )
    max_windows: _Count = Field(default=200_000, ge=1, description="windows of a request with fit=grid")
    max_json_items: _Count = Field(
        default=10_000, ge=1, description="windows of a request that is answered in JSON or GeoJSON"
    )
    max_inflight_windows: _Count = Field(
        default=256, ge=2, description="windows of a request that wait for the engine at a time"
    )

    spool_dir: Path | None = Field(
        default=None,
        description="folder for large bodies, answers and blocks; the system's temporary one if unset",
    )
    spool_above_mb: _Size = Field(
        default=8, ge=0, description="what a body, an answer or the blocks of a scene may keep in memory"
    )
    max_spool_mb: _Size = Field(default=16_000, gt=0, description="on disk at a time, of each process")

    cache_mb: _Size = Field(default=64, ge=0, description="results kept in the process; 0 = none")
    redis_url: str | None = Field(
        default=None,
        repr=False,  # may hold a password
        description="redis://[user:password@]host[:port][/database]; no Redis if unset",
    )
    # Keys name the model and all that a result depends on: entries never become wrong, only unused.
    redis_ttl_s: int = Field(
        default=7 * 24 * 3600, ge=1, le=10**9, description="how long Redis keeps a result"
    )
    # Computing a tile takes 2.5 to 10 ms: a Redis that takes much longer to answer is no help.
    redis_connect_timeout_ms: float = Field(
        default=50, gt=0, le=10_000, description="for a connection to Redis"
    )
    redis_timeout_ms: float = Field(default=50, gt=0, le=10_000, description="for Redis' answer")
    redis_max_connections: int = Field(default=16, ge=2, le=1000, description="of each worker")
    redis_write_queue_mb: _Size = Field(
        default=16, ge=0, description="results waiting to be written to Redis; more are dropped"
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            from service.caching import redis_url  # the client library is loaded only where it is used

            try:
                redis_url.check(url)
            except ValueError as error:
                raise PydanticCustomError("redis_url", "{reason}", {"reason": str(error)}) from error
        return url

    @field_validator("fetch_hosts")
    @classmethod
    def _check_fetch_hosts(cls, hosts: str | None) -> str | None:
        if hosts is not None:
            from service.http.allowed_hosts import AllowedHosts

            try:
                AllowedHosts(hosts)
            except ValueError as error:
                raise PydanticCustomError("fetch_hosts", "{reason}", {"reason": str(error)}) from error
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: str | None) -> str | None:
        for origin in _listed(origins):
            if not _ORIGIN.fullmatch(origin):
                raise PydanticCustomError(
                    "origin",
                    "{origin} is no origin; expected one such as https://example.org with no slash after it",
                    {"origin": repr(origin)},
                )
        return origins

    @property
    def max_upload_bytes(self) -> int:
        """The limit of a request's body."""
        return int(self.max_upload_mb * 1_000_000)

    @property
    def allowed_origins(self) -> list[str]:
        """Of CORS."""
        return _listed(self.cors_origins)

    @property
    def spool_memory_bytes(self) -> int:
        """What a body or an answer may keep in memory."""
        return int(self.spool_above_mb * 1_000_000)

    @property
    def max_spool_bytes(self) -> int:
        """The limit of what is spooled."""
        return int(self.max_spool_mb * 1_000_000)

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
            f"{PREFIX}{str(e['loc'][0]).upper()} {_shown(e['loc'][0], e['input'])}: "
            f"{e['msg'][0].lower()}{e['msg'][1:]}"
            for e in error.errors(include_url=False, include_context=False)
        )
        raise SettingsError(problems) from error


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Which environment variables are no settings though they look like one, and which that is."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    like = {
        name: get_close_matches(name, known, n=1, cutoff=_ALIKE)
        for name in names
        if name.startswith(PREFIX) and name not in known
    }
    return {name: found[0] for name, found in like.items() if found}


def _listed(text: str | None) -> list[str]:
    return [item.strip() for item in (text or "").split(",") if item.strip()]


def _shown(name: int | str, value: object) -> str:
    field = Settings.model_fields.get(str(name))
    return f"is {value!r}" if field is None or field.repr else "cannot be used"
