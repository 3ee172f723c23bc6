"""What a network and its inputs are: the two records that every checkpoint and bundle carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from model import bands

NodataFill = Literal["as_is", "band_mean"]
HourConvention = Literal["full", "first_digit"]

NUM_METADATA_TOKENS = 4  # week, hour, latitude, longitude
NUM_EXTRA_TOKENS = NUM_METADATA_TOKENS + 1  # and cls, before the patches
CLS_TOKEN = NUM_METADATA_TOKENS  # where cls stands among them

# Raised whenever the same file and parameters would be prepared into other pixels or encodings,
# so that cached results of the older rules are not served.
PREPROCESSING_VERSION = 2  # 2: what is below any reflectance is missing


class ConfigError(ValueError):
    """A model configuration or preprocessing record that cannot be used, and why."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of the MoE-MAE (arXiv 2509.10919, section 3).

    Raises:
        ConfigError: a size that is not a positive integer, or sizes that do not divide as they must.
    """

    embed_dim: int
    depth: int
    first_hidden: int  # hidden dimension of an expert in the first layer
    last_hidden: int  # and in the last; linear in between
    num_heads: int
    num_groups: int  # key-value groups of the grouped-query attention
    image_size: int = 40  # px, a side
    patch_size: int = 4  # px, a side
    in_channels: int = 7
    top_k: int = 2  # experts per token
    dropout: float = 0.1  # at the experts' output
    decoder_dim: int = 108
    decoder_depth: int = 2
    decoder_heads: int = 6
    decoder_groups: int = 3
    decoder_hidden: int = 54
    decoder_experts: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "dropout":
                if not (isinstance(value, (int, float)) and 0 <= value < 1):
                    raise ConfigError(f"dropout is {value!r}; expected a number in [0, 1)")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{field.name} is {value!r}; expected a positive integer")
        for what, by in (
            ("image_size", "patch_size"),
            ("embed_dim", "num_heads"),
            ("num_heads", "num_groups"),
            ("decoder_dim", "decoder_heads"),
            ("decoder_heads", "decoder_groups"),
        ):
            if getattr(self, what) % getattr(self, by):
                raise ConfigError(
                    f"{what} {getattr(self, what)} is not a multiple of {by} {getattr(self, by)}"
                )
        if self.depth < 3:
            raise ConfigError(f"depth is {self.depth}; expected at least 3, one layer for each expert stage")
        if self.top_k >= min(3, self.decoder_experts):  # the load term needs the (k+1)-th largest logit
            raise ConfigError(f"top_k is {self.top_k}; expected fewer than the 3 experts of the first stage")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patch tokens of a tile."""
        return self.grid**2

    @property
    def num_tokens(self) -> int:
        """All tokens: week, hour, lat, lon, cls, then the patches row by row."""
        return self.num_patches + NUM_EXTRA_TOKENS

    @property
    def patch_values(self) -> int:
        """Values in a patch, all bands."""
        return self.in_channels * self.patch_size**2

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Expert hidden dimension of every encoder layer, first to last."""
        last = self.depth - 1
        span = self.first_hidden - self.last_hidden
        return tuple(int(((last - i) / last) * span) + self.last_hidden for i in range(self.depth))

    @property
    def num_experts(self) -> tuple[int, ...]:
        """Experts of every encoder layer: three stages of 3, 4 and 5."""
        return tuple(3 + min(i // (self.depth // 3), 2) for i in range(self.depth))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; names unknown and missing fields."""
        return cls(**_checked(cls, values))


@dataclass(frozen=True)
class Preprocessing:
    """How raw DN and metadata become the network's inputs.

    `mean` and `std` are the per-band statistics (DN) of the z-score inside the network. `nodata_fill` says
    what invalid pixels are fed as. `hour_convention` is `full`, or `first_digit` for weights that were
    trained with the hour read from one digit of a file name. `missing_metadata_trained` says whether zeros
    for missing metadata were seen in training.
    """

    mean: tuple[float, ...] = bands.MEAN
    std: tuple[float, ...] = bands.STD
    nodata_fill: NodataFill = "as_is"
    hour_convention: HourConvention = "full"
    missing_metadata_trained: bool = False
    version: int = PREPROCESSING_VERSION

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ConfigError(
                f"band statistics: {len(self.mean)} means, {len(self.std)} deviations, all must be > 0"
            )
        if self.nodata_fill not in get_args(NodataFill):
            raise ConfigError(f"nodata_fill is {self.nodata_fill!r}; expected one of {get_args(NodataFill)}")
        if self.hour_convention not in get_args(HourConvention):
            raise ConfigError(
                f"hour_convention is {self.hour_convention!r}; expected {get_args(HourConvention)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`; names unknown and missing fields."""
        known = _checked(cls, values)
        return replace(cls(**known), mean=tuple(known["mean"]), std=tuple(known["std"]))


def _checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    if values.keys() != names:
        raise ConfigError(
            f"{cls.__name__}: missing {sorted(names - values.keys()) or 'nothing'}, "
            f"unknown {sorted(values.keys() - names) or 'nothing'}"
        )
    return dict(values)


# The published sizes (reference table of the paper's repository).
SIZES: dict[str, ModelConfig] = {
    "S": ModelConfig(embed_dim=144, depth=15, first_hidden=144, last_hidden=72, num_heads=8, num_groups=4),
    "XS": ModelConfig(embed_dim=128, depth=12, first_hidden=96, last_hidden=32, num_heads=8, num_groups=4),
    "XXS": ModelConfig(embed_dim=108, depth=9, first_hidden=81, last_hidden=27, num_heads=6, num_groups=3),
}
