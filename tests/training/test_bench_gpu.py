"""The GPU bench on the CPU: only the device differs, so what is compared and written can be checked here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model import checkpoint
from model.checkpoint import Checkpoint
from model.config import Preprocessing
from tests.model.networks import SMALL, inputs
from tests.records import read_record
from tests.training.packed import packed
from training import bench_gpu, gpu_contenders, gpu_parity, gpu_table, gpu_tiles
from training.bench_gpu import Plan, SectionError
from training.cli import app
from training.gpu_contenders import BASELINE
from training.gpu_tiles import TilesError

CPU = torch.device("cpu")
ON_CPU = {
    "loop fp32", "loop bf16", "dense fp32", "dense bf16", "fused fp32", "fused fp16", "fused bf16",
    "onnx fp32", "onnx fp16",
}  # fmt: skip
EXACT = {"dense fp32", "fused fp32", "onnx fp32"}


@pytest.fixture(scope="module")
def network() -> Checkpoint:
    return checkpoint.initialise(SMALL, 0)


def plan(network: Checkpoint, out: Path, *only: str) -> Plan:
    return Plan(
        network, inputs(5), CPU, out, batches=(3,), compiled=(), rounds=1, seconds=0.01, only=only, quick=True
    )


def test_every_section_is_written_once(network: Checkpoint, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = plan(network, tmp_path / "out", "ceilings", "parity", "batch-3")
    files = bench_gpu.run(wanted, said.append)
    assert [file.name for file in files] == ["ceilings.json", "parity.json", "batch-3.json"]
    ceilings = read_record(files[0], "gpu ceilings")
    assert all(rate > 0 for row in ceilings["rows"] for rate, _, _ in row["figures"].values())

    parity = read_record(files[1], "gpu parity")
    found = {row["of"]["contender"]: row["figures"] for row in parity["rows"]}
    assert found.keys() == ON_CPU
    for name, figures in found.items():
        assert figures["cosine_loss_mean"][0] < (1e-9 if name in EXACT else 5e-4), name
        assert figures["max_relative_error"][0] < (1e-5 if name in EXACT else 0.5), name
    assert found["fused fp16"]["max_relative_error"][0] > 1e-6  # it is not fp32 under another name

    throughput = read_record(files[2], "gpu throughput")
    rates = {row["of"]["contender"]: row["figures"] for row in throughput["rows"]}
    assert rates.keys() == ON_CPU
    assert rates[BASELINE]["times_loop"] == [1, 1, 1]
    assert all(figures["tiles_per_s_with_transfers"][0] > 0 for figures in rates.values())
    assert throughput["absent"]["fused fp16 kernel graph"] == "Triton needs a CUDA device"
    assert throughput["settings"]["device"]["type"] == "cpu"

    kept = [file.read_bytes() for file in files]
    assert bench_gpu.run(wanted, said.append) == files
    assert [file.read_bytes() for file in files] == kept
    assert sum("measured before" in line for line in said) == 3

    table = gpu_table.markdown(files)
    for name in ON_CPU:
        assert table.count(f"\n| {name} |") == 2, name
    assert "| copy on the device |" in table


def test_a_contender_that_is_wrong_is_seen(network: Checkpoint) -> None:
    tiles = inputs(5)
    made = gpu_contenders.contenders(network, CPU)
    reference = gpu_parity.exact(made.ready[BASELINE], tiles, CPU, 2)
    other = gpu_contenders.contenders(checkpoint.initialise(SMALL, 1), CPU).ready["fused fp32"]
    assert gpu_parity.against(reference, made.ready["fused fp32"], tiles, CPU, 2)["cosine_loss_mean"] < 1e-9
    assert gpu_parity.against(reference, other, tiles, CPU, 2)["cosine_loss_mean"] > 0.01


def test_one_that_fails_is_said_and_the_others_are_measured(network: Checkpoint) -> None:
    def broken(_dn: torch.Tensor, _metadata: torch.Tensor) -> gpu_contenders.Run:
        raise RuntimeError("out of memory\nat some length")

    tiles = inputs(2)
    made = gpu_contenders.contenders(network, CPU).ready
    reference = gpu_parity.exact(made[BASELINE], tiles, CPU, 2)
    chosen = {"broken": broken, "dense fp32": made["dense fp32"]}
    found, failed = gpu_parity.all_against(reference, chosen, tiles, CPU, 2)
    assert found.keys() == {"dense fp32"}
    assert failed == {"broken": "RuntimeError: out of memory"}


def test_compiled_forms_are_those_beside_the_baseline(network: Checkpoint) -> None:
    made = gpu_contenders.compiled_contenders(network, CPU)
    assert list(made.ready) == [
        BASELINE, "loop fp32 compiled", "loop bf16 compiled", "dense bf16 compiled", "fused fp16 compiled",
    ]  # fmt: skip


def test_a_service_that_does_not_start_is_said(network: Checkpoint, tmp_path: Path) -> None:
    wanted = Plan(network, inputs(1), CPU, tmp_path, bundle=tmp_path / "none", only=("service",), quick=True)
    (file,) = bench_gpu.run(wanted, lambda _: None)
    record = json.loads(file.read_text())
    assert record["rows"] == []
    assert "no bundle at" in record["absent"]["service"]


def test_unknown_section_is_named(network: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="no section speed; there are ceilings, parity, batch-3"):
        bench_gpu.run(plan(network, tmp_path, "speed"))


def test_tiles_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tiles.npz"
    dn = np.arange(9 * 7 * 42 * 42, dtype=np.uint16).reshape(9, 7, 42, 42)
    dn[0, 0, 5, 5] = 0
    encodings = np.ones((9, 4, 2), np.float32)
    np.savez(file, dn=dn, metadata=encodings)
    found, known = gpu_tiles.load(file, SMALL, Preprocessing(), count=3)
    assert np.array_equal(found[1:], dn[[4, 8], :, 1:41, 1:41])
    assert np.array_equal(known, encodings[:3])
    np.savez(file, dn=dn)
    assert not gpu_tiles.load(file, SMALL, Preprocessing(), count=3)[1].any()


def test_tiles_come_from_a_packed_set(tmp_path: Path) -> None:
    whole = packed(tmp_path, 24)
    dn, known = gpu_tiles.load(whole.path, SMALL, Preprocessing(nodata_fill="as_is"), count=7)
    rows = np.linspace(0, whole.count - 1, 7).round().astype(int)
    assert np.array_equal(dn, whole.column("pixels")[rows])
    assert np.array_equal(known, whole.column("encodings")[rows])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros(3)}, "holds y; expected dn or x"),
        ({"dn": np.zeros((2, 7, 40, 40), np.float32)}, r"dn is float32 \(2, 7, 40, 40\); expected uint16"),
        (
            {"x": np.zeros((2, 6, 40, 40), np.uint16)},
            r"x is uint16 \(2, 6, 40, 40\); expected uint16 \(N, 7,",
        ),
    ],
)
def test_a_file_without_tiles_is_refused(arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "tiles.npz", **arrays)
    with pytest.raises(TilesError, match=said):
        gpu_tiles.load(tmp_path / "tiles.npz", SMALL, Preprocessing())


@pytest.mark.parametrize("size", [0, 700, -20])
def test_a_file_that_is_cut_off_is_refused(size: int, tmp_path: Path) -> None:
    file = tmp_path / "tiles.npz"
    np.savez(file, dn=np.ones((2, 7, 40, 40), np.uint16))
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(TilesError, match=r"tiles\.npz is no \.npz file, or is cut off"):
        gpu_tiles.load(file, SMALL, Preprocessing())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tiles.npz"
    np.savez(file, dn=np.ones((2, 7, 40, 40), np.uint16))
    content = bytearray(file.read_bytes())
    content[5_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(TilesError, match=r"tiles\.npz: Bad CRC-32"):
        gpu_tiles.load(file, SMALL, Preprocessing())


def test_the_command(tmp_path: Path) -> None:
    weights, out = tmp_path / "w.safetensors", tmp_path / "out"
    checkpoint.save(weights, checkpoint.initialise(SMALL, 0))
    arguments = ["bench", "gpu", "-o", str(out), "--checkpoint", str(weights), "--device", "cpu", "--quick"]
    done = CliRunner().invoke(app, [*arguments, "--section", "ceilings"])
    assert done.exit_code == 0, done.output
    assert (out / "gpu.md").read_text() in done.output
    refused = CliRunner().invoke(app, [*arguments, "--tiles", str(tmp_path)])
    assert refused.exit_code == 1
    assert "no manifest.json" in refused.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_said(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["bench", "gpu", "-o", str(tmp_path)])
    assert refused.exit_code == 2
    assert "no CUDA device" in refused.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--device", "gpu0"], 2, "no device 'gpu0'"),
        (["--device", "cpu", "--section", "ceilings", "--out", "taken/out"], 1, "error: [Errno 20]"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("")
    refused = CliRunner().invoke(app, ["bench", "gpu", "--quick", "-o", "out", *arguments])
    assert refused.exit_code == code
    assert said in refused.output
