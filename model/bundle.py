"""Bundle: the folder that is a servable model, read and verified (bundle_writer.py writes it).

    bundle.json              what the model is, and the SHA-256 of every other file (see manifest.py)
    card.md                  the model card
    encoder.<precision>.onnx the encoder, one file for each precision
    probes/<name>.safetensors  linear probes, if any

The digest of a bundle is the SHA-256 of bundle.json in canonical form, so it names every byte of every file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import hub, manifest
from model.config import PREPROCESSING_VERSION, ConfigError, ModelConfig, Preprocessing
from model.manifest import CARD, MANIFEST, BundleError
from model.outputs import shapes
from model.probe import LinearProbe, ProbeError, load_probe

__all__ = ["DEFAULT", "Bundle", "BundleError", "load"]

DEFAULT = Path(__file__).resolve().parent / "bundles" / "default"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    `training` says what the weights were trained on and under which licences, `metrics` what they reach and
    by which protocol, `parity` (by precision) how far the ONNX file was measured to be from the unfused
    network. `files` maps each file's name to its SHA-256 (hex).
    """

    path: Path
    name: str
    version: str
    digest: str  # hex
    trained: bool
    config: ModelConfig
    preprocessing: Preprocessing
    training: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]
    card: str
    files: dict[str, str]

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions for which the bundle has an encoder, in alphabetical order."""
        return tuple(sorted(filter(None, map(manifest.precision_of, self.files))))

    @property
    def probe_names(self) -> tuple[str, ...]:
        """Names of the probes in the bundle, in alphabetical order; the first is the default."""
        return tuple(sorted(filter(None, map(manifest.probe_of, self.files))))

    def probe(self, name: str) -> LinearProbe:
        """Reads a probe, which fits the encoder's embedding size.

        Raises:
            BundleError: the bundle has no probe of this name, or one that cannot be used.
        """
        if name not in self.probe_names:
            raise BundleError(
                f"bundle {self.name} has no probe {name!r}; it has {', '.join(self.probe_names) or 'none'}"
            )
        try:
            probe = load_probe(self.path / manifest.probe_file(name))
        except ProbeError as error:
            raise BundleError(str(error)) from error
        self.check_fits(name, probe)
        return probe

    def check_fits(self, name: str, probe: LinearProbe) -> None:
        """Raises BundleError, with this name, if a probe does not fit the embedding size."""
        if probe.dim != (expected := math.prod(shapes(self.config)[probe.pooling])):
            raise BundleError(
                f"probe {name} of {self.path} reads {probe.dim} values of {probe.pooling}; "
                f"the encoder gives {expected}"
            )

    def encoder_path(self, precision: str = "fp32") -> Path:
        """The encoder's ONNX file. That of bf16 is the one of fp32: who runs it rounds (openvino_session.py).

        Raises:
            BundleError: the bundle has none of this precision.
        """
        return self.path / self._encoder(precision)

    def encoder_digest(self, precision: str = "fp32") -> str:
        """SHA-256 (hex) of the encoder's ONNX file; raises as `encoder_path` does."""
        return self.files[self._encoder(precision)]

    def _encoder(self, precision: str) -> str:
        name = f"encoder.{'fp32' if precision == 'bf16' else precision}.onnx"
        if name not in self.files:
            raise BundleError(
                f"bundle {self.name} has no {precision!r} encoder; it has {', '.join(self.precisions)}"
            )
        return name


def load(source: Path | str | None = None) -> Bundle:
    """Reads a bundle and verifies every byte of it.

    Args:
        source: the bundle's folder; `hf://owner/name[@revision]` for one on a hub (see hub.py); None for the
            one that ships in the package.

    Raises:
        BundleError: no such folder or repository, one that is no bundle, a format or preparation rules newer
            than this program, a file that is missing, surplus, too large or damaged.
    """
    path = _locate(source)
    record = manifest.read(path, exact=not hub.is_address(source))
    try:
        config = ModelConfig.from_dict(record["config"])
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
    except (ConfigError, TypeError) as error:
        raise BundleError(f"{path / MANIFEST}: {error}") from error
    if preprocessing.version > PREPROCESSING_VERSION:
        raise BundleError(
            f"{path} was made for preprocessing version {preprocessing.version}; this program knows versions "
            f"up to {PREPROCESSING_VERSION}: a newer landmoe is needed"
        )
    return Bundle(
        path=path,
        name=record["name"],
        version=record["version"],
        digest=manifest.digest(record),
        trained=record["trained"],
        config=config,
        preprocessing=preprocessing,
        training=record["training"],
        metrics=record["metrics"],
        parity=record["parity"],
        card=manifest.read_text(path / CARD, manifest.MAX_CARD_BYTES),
        files=record["files"],
    )


def _locate(source: Path | str | None) -> Path:
    if source is None or not hub.is_address(source):
        return DEFAULT if source is None else Path(source)
    try:
        return hub.fetch_bundle(source)
    except hub.HubError as error:
        raise BundleError(str(error)) from error
