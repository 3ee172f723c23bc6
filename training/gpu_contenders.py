"""What embeds a batch that lies on the device: the published form, our fused one, and ONNX Runtime.

Each is prepared for a batch's buffers and then called without arguments, so that all of them may do what they
need to be fast: record CUDA graphs, compile for a shape, bind addresses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from model import gate_mix
from model.checkpoint import Checkpoint
from model.expert_loop import with_looped_experts
from model.fused import fuse
from model.fused_torch import FusedNetwork
from model.graph import to_onnx
from model.layers import NoisyTopKGate, Routing
from model.moe_mae import Encoder
from model.padding import padded

Run = Callable[[], tuple[Tensor, Tensor]]
"""Embeds what the buffers hold now: mean [B, m] and tokens [B, N, m] on the device, until the next call."""
Prepare = Callable[[Tensor, Tensor], Run]
"""Buffers `dn` uint16 [B, C, S, S] and `metadata` fp32 [B, 4, 2], to how they are embedded."""

BASELINE = "loop fp32"
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_WARM_UP = 3


@dataclass(frozen=True)
class Contenders:
    """Those that this machine can run, in the order of the table, and why others are missing."""

    ready: dict[str, Prepare]
    absent: dict[str, str]


def contenders(checkpoint: Checkpoint, device: torch.device) -> Contenders:
    """Everything that is compared; the first, `BASELINE`, is what the others are multiples of."""
    encoder = checkpoint.model.encoder.eval()
    dense = _unfused(checkpoint, loop=False, device=device)
    loop = _unfused(checkpoint, loop=True, device=device)
    fused = fuse(encoder)
    single = FusedNetwork(fused).to(device)
    half = {name: FusedNetwork(padded(fused), dtype).to(device) for name, dtype in _HALVES.items()}
    kernel = FusedNetwork(padded(fused), torch.float16, gate_mix.kernel_mix).to(device)
    ready: dict[str, Prepare] = {
        BASELINE: _eager(loop),
        "loop bf16": _eager(_in_bfloat16(loop)),
        "dense fp32": _eager(dense),
        "dense bf16": _eager(_in_bfloat16(dense)),
        "fused fp32": _eager(single),
        **{f"fused {name}": _eager(network) for name, network in half.items()},
    }
    absent: dict[str, str] = {}
    recorded = {
        "fused fp32 graph": _recorded(single),
        "fused fp16 graph": _recorded(half["fp16"]),
        "fused bf16 graph": _recorded(half["bf16"]),
    }
    cuda = device.type == "cuda"
    ready |= recorded if cuda else {}
    absent |= {} if cuda else dict.fromkeys(recorded, "CUDA graphs need a CUDA device")
    if why := gate_mix.available() if cuda else "Triton needs a CUDA device":
        absent["fused fp16 kernel graph"] = why
    else:
        ready["fused fp16 kernel graph"] = _recorded(kernel)
    if cuda and "CUDAExecutionProvider" not in ort.get_available_providers():
        absent |= dict.fromkeys(("onnx fp32", "onnx fp16"), "the installed ONNX Runtime has no CUDA")
    else:
        ready["onnx fp32"] = _bound(to_onnx(fused).SerializeToString(), device)
        ready["onnx fp16"] = _bound(to_onnx(padded(fused), half=True).SerializeToString(), device)
    return Contenders(ready, absent)


def compiled_contenders(checkpoint: Checkpoint, device: torch.device) -> Contenders:
    """What torch.compile makes of the same, beside `BASELINE`; each takes a minute or more to prepare.

    The loop over experts branches on data, so it is compiled in pieces, one for each expert of each layer;
    more of them are allowed than by default, where the rest would silently stay as it is.
    """
    torch.compiler.reset()  # what was compiled for another batch size
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 4096
    dense = _unfused(checkpoint, loop=False, device=device)
    loop = _unfused(checkpoint, loop=True, device=device)
    half = FusedNetwork(padded(fuse(checkpoint.model.encoder.eval())), torch.float16).to(device)
    ready = {
        BASELINE: _eager(loop),
        "loop fp32 compiled": _compiled(copy.deepcopy(loop)),
        "loop bf16 compiled": _compiled(_in_bfloat16(loop)),
        "dense bf16 compiled": _compiled(_in_bfloat16(dense)),
        "fused fp16 compiled": _compiled(half),
    }
    return Contenders(ready, {})


class _PlainGate(nn.Module):
    """The gate without what only training needs: a baseline is not to be slowed down by it."""

    def __init__(self, gate: NoisyTopKGate) -> None:
        super().__init__()
        self.Wg, self.top_k = gate.Wg, gate.top_k

    def forward(self, x: Tensor) -> Routing:
        logits: Tensor = self.Wg(x.float())
        best, index = logits.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, index, best.softmax(dim=-1))
        return Routing(gates, logits.new_zeros(()))


class _Unfused(nn.Module):
    """The network as it is trained, from the same inputs to the same outputs as the others."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.dtype = torch.float32

    def forward(self, dn: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder.standardise(dn.float())
        tokens: Tensor = self.encoder(z.to(self.dtype), metadata.to(self.dtype)).tokens.float()
        return tokens.mean(dim=1), tokens


def _unfused(checkpoint: Checkpoint, *, loop: bool, device: torch.device) -> _Unfused:
    network = copy.deepcopy(checkpoint.model).eval()
    if loop:
        network = with_looped_experts(network)
    for block in network.encoder.layers:
        block.gate = _PlainGate(block.gate)  # type: ignore[arg-type]
    return _Unfused(network.encoder).to(device)


def _in_bfloat16(network: _Unfused) -> _Unfused:
    """All but the gates and the statistics of the z-score, which are fp32 wherever this network runs."""
    changed = copy.deepcopy(network)
    mean, std = changed.encoder.mean.clone(), changed.encoder.std.clone()
    changed.encoder.bfloat16()
    changed.encoder.mean, changed.encoder.std = mean, std
    for block in changed.encoder.layers:
        block.gate.float()
    changed.dtype = torch.bfloat16
    return changed


def _eager(network: nn.Module) -> Prepare:
    def prepare(dn: Tensor, metadata: Tensor) -> Run:
        return lambda: network(dn, metadata)

    return prepare


def _compiled(network: nn.Module) -> Prepare:
    def prepare(dn: Tensor, metadata: Tensor) -> Run:
        made = torch.compile(network)
        made(dn, metadata)
        return lambda: made(dn, metadata)

    return prepare


def _recorded(network: nn.Module) -> Prepare:
    def prepare(dn: Tensor, metadata: Tensor) -> Run:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                network(dn, metadata)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = network(dn, metadata)

        def run() -> tuple[Tensor, Tensor]:
            graph.replay()
            return outputs  # type: ignore[no-any-return]

        return run

    return prepare


def _bound(content: bytes, device: torch.device) -> Prepare:
    """ONNX Runtime on the buffers of torch, its outputs in others of torch: nothing is moved."""
    cuda = device.type == "cuda"
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def prepare(dn: Tensor, metadata: Tensor) -> Run:
        flags = {"use_tf32": "0", "enable_cuda_graph": "1", "cudnn_conv_algo_search": "HEURISTIC"}
        providers = [("CUDAExecutionProvider", flags)] if cuda else ["CPUExecutionProvider"]
        session = ort.InferenceSession(content, options, providers=providers)
        shapes = {value.name: value.shape[1:] for value in session.get_outputs()}
        found = {
            name: torch.empty((len(dn), *shapes[name]), dtype=torch.float32, device=device)
            for name in ("mean", "tokens")
        }
        binding = session.io_binding()
        types = {torch.uint16: np.uint16, torch.float32: np.float32}
        place = device.type, device.index or 0
        for name, value in (("dn", dn), ("metadata", metadata)):
            binding.bind_input(name, *place, types[value.dtype], tuple(value.shape), value.data_ptr())
        for name, value in found.items():
            binding.bind_output(name, *place, np.float32, tuple(value.shape), value.data_ptr())

        def run() -> tuple[Tensor, Tensor]:
            if cuda:  # what torch still writes to the buffers is in another stream
                torch.cuda.current_stream().synchronize()
            session.run_with_iobinding(binding)
            return found["mean"], found["tokens"]

        return run

    return prepare
