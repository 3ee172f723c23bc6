"""Everything a pretraining run can be told (YAML keys, with their defaults)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.bands import BANDS
from model.config import SIZES, ConfigError, HourConvention, ModelConfig, NodataFill, Preprocessing
from model.moe_mae import patches_kept
from model.windows import TILE_SIZE
from training.loss import LossConfig
from training.schedule import Schedule

_STRICT = ConfigDict(extra="forbid", frozen=True)
_Split = Literal["train", "validation", "test", "buffer"]  # shards.SPLITS
_Beta = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(BaseModel):
    """Which packed tiles are seen, how often, and how changed."""

    model_config = _STRICT

    path: Path = Field(description="a packed set")
    split: _Split | None = Field(default="train", description="None uses every tile")
    validation_split: _Split | None = Field(default="validation", description="None validates on nothing")
    weights: dict[str, float] | None = Field(
        default=None, description="share of views per source; None: by number of tiles"
    )
    min_valid_fraction: float = Field(
        default=0.0, ge=0, le=1, description="share of valid pixels; tiles with less are not seen"
    )
    nodata_fill: NodataFill = Field(
        default="as_is", description="what invalid pixels are fed as; with `encoder`, as it was trained"
    )
    flips: bool = Field(default=False, description="each view in one of the eight symmetries of the square")
    drop_metadata: float = Field(default=0.0, ge=0, le=1, description="share of views without any metadata")
    drop_field: float = Field(
        default=0.0, ge=0, le=1, description="share that loses time, hour or place, each drawn on its own"
    )

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if any(not w > 0 for w in (weights or {}).values()):
            raise ValueError("expected positive numbers")
        return weights


class OptimiserConfig(BaseModel):
    """AdamW and its schedule."""

    model_config = _STRICT

    learning_rate: float = Field(gt=0, allow_inf_nan=False, description="the highest")
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine",
        description="after the warm-up; constant ends with `decay` and can be lengthened before",
    )
    warm_up: float = Field(default=0.05, ge=0, description="share of the steps, or from 1 on their number")
    decay: float = Field(
        default=0.25, gt=0, le=1, description="share of the steps, for the constant schedule"
    )
    clip: float = Field(default=1.0, gt=0, description="gradient norm")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of averaged weights; None keeps none"
    )


class RunConfig(BaseModel):
    """Devices, precision, and how often what is written. None of it changes what is learned."""

    model_config = _STRICT

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    devices: int | Literal["auto"] = Field(
        default="auto", description="of each machine; auto: all its GPUs, or one process on a CPU"
    )
    nodes: int = Field(default=1, ge=1, description="machines")
    precision: Literal["auto", "32", "bf16", "16"] = Field(
        default="auto", description="auto: bf16 on GPUs that have it, 16 on others, 32 on CPU"
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of torch; None leaves its choice"
    )
    log_every: int = Field(default=10, ge=1, description="steps")
    validate_every: int = Field(default=500, ge=1, description="steps")
    save_every: int = Field(default=500, ge=1, description="steps")

    @field_validator("precision", mode="before")
    @classmethod
    def _text(cls, precision: object) -> object:
        """`run.precision=32` on a command line is a number."""
        return str(precision) if isinstance(precision, int) else precision


class PretrainConfig(BaseModel):
    """A pretraining run."""

    model_config = _STRICT

    name: str = Field(default="moe-mae", description="of the checkpoint")
    model: Literal["S", "XS", "XXS"] | dict[str, Any] = Field(
        default="S", description="a size, or all its fields"
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="None: the size's own (0.1)")
    positions: Literal["random", "waves"] = Field(
        default="random", description="start of the learned positions; waves: sines of row and column"
    )
    encoder: Path | None = Field(
        default=None,
        description="a checkpoint to start from, whose encoder stays as it is: the decoder alone is trained",
    )
    data: DataConfig
    optimiser: OptimiserConfig
    loss: LossConfig = LossConfig()
    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="share of the patches that are hidden")
    batch_size: int = Field(default=128, ge=1, description="tiles per device and micro-batch")
    accumulate: int = Field(default=1, ge=1, description="micro-batches per step")
    steps: int | None = Field(default=None, ge=1, description="updates; these or `epochs`")
    epochs: float | None = Field(default=None, gt=0, description="each as many views as there are tiles")
    seed: int = Field(default=0, ge=0, description="of everything random")
    run: RunConfig = RunConfig()

    @field_validator("model")
    @classmethod
    def _known_fields(cls, model: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(model, str):
            return model
        try:
            config = ModelConfig(**model)
        except (ConfigError, TypeError) as error:
            raise ValueError(str(error)) from error
        for what, is_, packed in (
            ("image_size", config.image_size, TILE_SIZE),
            ("in_channels", config.in_channels, len(BANDS)),
        ):
            if is_ != packed:
                raise ValueError(f"{what} is {is_}; expected {packed}, as packed tiles have")
        return model

    @model_validator(mode="after")
    def _one_length(self) -> PretrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"expected exactly one of steps and epochs; got {self.steps} and {self.epochs}")
        return self

    @model_validator(mode="after")
    def _some_hidden(self) -> PretrainConfig:
        patches = self.architecture.num_patches
        if not 0 < patches_kept(patches, self.mask_ratio) < patches:
            raise ValueError(
                f"mask_ratio {self.mask_ratio:g} hides all or none of {patches} patches; expected some"
            )
        return self

    @property
    def architecture(self) -> ModelConfig:
        """The network's configuration."""
        config = SIZES[self.model] if isinstance(self.model, str) else ModelConfig(**self.model)
        return config if self.dropout is None else replace(config, dropout=self.dropout)

    def preprocessing(self, hour_convention: HourConvention) -> Preprocessing:
        """What the inputs of a network mean that is trained from the start, on data packed so."""
        return Preprocessing(
            nodata_fill=self.data.nodata_fill,
            hour_convention=hour_convention,
            missing_metadata_trained=max(self.data.drop_metadata, self.data.drop_field) > 0,
        )

    def total_steps(self, tiles: int, world: int) -> int:
        """Length of the run for so many training tiles and processes."""
        if self.steps is not None:
            return self.steps
        per_step = self.batch_size * self.accumulate * world
        return max(1, round((self.epochs or 0) * tiles / per_step))

    def schedule(self, total: int) -> Schedule:
        """The learning rates of a run of `total` steps."""
        o = self.optimiser
        return Schedule(o.schedule, o.learning_rate, total, o.warm_up, o.decay)

    def learned(self) -> dict[str, Any]:
        """All that decides what is learned, as JSON: what a resumed run must not change.

        The rates to come are compared by the schedule itself, since a constant one may be lengthened.
        """
        excluded: dict[str, Any] = {
            "run": True,
            "name": True,
            "steps": True,
            "epochs": True,
            "encoder": True,  # by its weights, not by where they lie
            "data": {"path": True},
        }
        return self.model_dump(mode="json", exclude=excluded)
