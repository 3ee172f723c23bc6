"""How far an encoder in fewer digits is from the exact one: the measurement that its export must pass.

Rounding moves every value a little, and now and then a token to another expert, which moves that token a lot.
So single tokens differ visibly while embeddings, means over tokens, hardly do: the bounds are on the cosine
of embeddings, and the share of tokens that keep their experts is said beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from model.config import ModelConfig
from model.graph_experts import CHOSEN
from model.parity import PROVIDER, batches

# The least cosine of any tile's embedding with that of the exact encoder.
MIN_COSINE = {"mean": 0.9995, "patch_mean": 0.9995, "cls": 0.998}
COMPARED = (*MIN_COSINE, "tokens")

Array = NDArray[np.float32]


@dataclass
class Deviation:
    """What was measured, over `tiles` tiles."""

    precision: str
    provider: str = PROVIDER
    tiles: int = 0
    least_cosine: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 1.0))
    sum_cosine: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0.0))
    decisions: int = 0  # of routing: tiles x layers x tokens
    same_experts: int = 0  # of these, with the same set of experts
    max_batch_difference: float = 0.0  # a tile alone against the same in its batch; 0 = bitwise equal

    @property
    def passed(self) -> bool:
        """Whether every tile's embedding is close enough; a NaN is not."""
        return self.tiles > 0 and all(self.least_cosine[name] >= bound for name, bound in MIN_COSINE.items())

    def add(self, found: dict[str, Any], exact: dict[str, Any]) -> None:
        """Counts a batch: outputs by name, and under `choices` 1 or 0, [B N, E] for each layer."""
        self.tiles += len(found["mean"])
        for name in COMPARED:
            cosines = cosine(found[name], exact[name])
            # Not min(): it passes over NaN.
            self.least_cosine[name] = float(np.minimum(self.least_cosine[name], cosines.min()))
            self.sum_cosine[name] += float(cosines.reshape(len(cosines), -1).mean(axis=1).sum())
        same, decisions = _agreement(found["choices"], exact["choices"])
        self.same_experts, self.decisions = self.same_experts + same, self.decisions + decisions

    def to_dict(self) -> dict[str, Any]:
        """For the bundle's record."""
        return {
            "against": "fp32",
            "provider": self.provider,
            "runtime": f"onnxruntime {ort.__version__}",
            "tiles": self.tiles,
            "least_cosine": dict(self.least_cosine),
            "mean_cosine": {name: total / self.tiles for name, total in self.sum_cosine.items()},
            "bounds": dict(MIN_COSINE),
            "routing_decisions": self.decisions,
            "routing_agreement": self.same_experts / self.decisions,
            "max_batch_difference": self.max_batch_difference,
        }

    def __str__(self) -> str:
        cosines = ", ".join(f"{name} {value:.6f}" for name, value in self.least_cosine.items())
        bounds = ", ".join(f"{name} {value:g}" for name, value in MIN_COSINE.items())
        return (
            f"{self.precision} against fp32, {self.tiles} tiles: least cosine {cosines} (bounds {bounds}); "
            f"{self.same_experts / max(self.decisions, 1):.4%} of routing decisions agree; "
            f"alone against in a batch: {self.max_batch_difference:g}"
        )


def measure_deviation(
    exact: bytes,
    other: bytes,
    config: ModelConfig,
    precision: str,
) -> Deviation:
    """Run two ONNX forms of an encoder on the tiles of parity.py, on the CPU.

    Args:
        exact: the fp32 encoder, serialised.
        other: with the same inputs, outputs and names of nodes; see graph.py.
        config: of both.
        precision: what the other computes in.
    """
    reference, session = _session(exact, config), _session(other, config)
    deviation = Deviation(precision)
    for dn, metadata in batches(config):
        found = _run(session, config, dn, metadata)
        deviation.add(found, _run(reference, config, dn, metadata))
        for i in {0, len(dn) // 2, len(dn) - 1}:
            alone = _run(session, config, dn[i : i + 1], metadata[i : i + 1])
            differences = [float(np.abs(alone[name][0] - found[name][i]).max()) for name in COMPARED]
            deviation.max_batch_difference = float(np.max([deviation.max_batch_difference, *differences]))
    return deviation


def cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Of the last axis, in float64."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    result: NDArray[np.float64] = (x * y).sum(axis=-1) / norms
    return result


def _session(content: bytes, config: ModelConfig) -> ort.InferenceSession:
    """With the experts that the gates have chosen as an output of its own."""
    model = onnx.load_from_string(content)
    shape = [None, sum(config.num_experts)]
    model.graph.output.append(onnx.helper.make_tensor_value_info(CHOSEN, onnx.TensorProto.FLOAT, shape))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])


def _run(
    session: ort.InferenceSession, config: ModelConfig, dn: NDArray[np.uint16], metadata: Array
) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(names, {"dn": dn, "metadata": metadata}), strict=True))
    layers = np.split(values.pop(CHOSEN), np.cumsum(config.num_experts)[:-1], axis=1)
    return values | {"choices": layers}  # [B N, E] each


def _agreement(a: list[Array], b: list[Array]) -> tuple[int, int]:
    """Decisions for the same set of experts, and all decisions."""
    same = np.stack([(mine == other).all(axis=1) for mine, other in zip(a, b, strict=True)])
    return int(same.sum()), same.size
