"""Bundles and devices that an engine cannot use are refused with the reason, at its start or a restart."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from model import bundle as bundles
from model import bundle_writer
from model.bundle import Bundle, BundleError
from service.batching import providers
from service.encoder_engine import EncoderEngine, make_engine
from service.engine import EngineError, warm_up
from service.settings import Settings
from tests.service.fake_engine import FakeEngine
from tests.service.runtimes import (
    batch,
)


def test_a_file_that_changed_after_verification_is_refused(loaded: Bundle) -> None:
    changed = replace(loaded, files=loaded.files | {"encoder.fp32.onnx": "0" * 64})
    with pytest.raises(BundleError, match="has changed since"):
        EncoderEngine(changed)


def test_a_file_that_is_no_network_is_refused_with_its_name(tmp_path: Path, loaded: Bundle) -> None:
    junk = bundle_writer.write(
        tmp_path / "junk",
        name="junk",
        version="1",
        trained=False,
        config=loaded.config,
        preprocessing=loaded.preprocessing,
        training={},
        metrics={},
        parity={},
        card="junk",
        files={"encoder.fp32.onnx": b"this is not ONNX"},
    )
    for kernels in (True, False):  # the kernels leave what they cannot read to ONNX Runtime
        with pytest.raises(EngineError, match=r"ONNX Runtime cannot use .*encoder\.fp32\.onnx"):
            EncoderEngine(junk, kernels=kernels)


def test_another_graph_is_refused(tmp_path: Path, loaded: Bundle) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3])
    out = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["mean"])], "other", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "encoder.fp32.onnx"
    path.write_bytes(model.SerializeToString())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    other = replace(loaded, path=tmp_path, files={path.name: digest})
    with pytest.raises(EngineError, match=r"has the inputs \{'image'.*expected \{'dn'"):
        EncoderEngine(other)


def test_warm_up_refuses_outputs_that_the_configuration_does_not_have(loaded: Bundle) -> None:
    warm_up(FakeEngine(), (1, 3))
    with pytest.raises(EngineError, match=r"output mean is float32 \(1, 12\); expected float32 \(1, 144\)"):
        warm_up(FakeEngine(loaded), (1,))


def test_a_restart_does_not_need_a_bundle_that_was_removed(tmp_path: Path, loaded: Bundle) -> None:
    copied = shutil.copytree(loaded.path, tmp_path / "bundle")
    engine = EncoderEngine(bundles.load(copied))
    before = engine.run(*batch(2), ("mean",))["mean"]
    shutil.rmtree(copied)
    engine.restart()
    assert np.array_equal(engine.run(*batch(2), ("mean",))["mean"], before)


def test_a_bundle_that_changed_is_not_taken_by_a_restart(tmp_path: Path, loaded: Bundle) -> None:
    engine = EncoderEngine(bundles.load(shutil.copytree(loaded.path, tmp_path / "bundle")))
    with (tmp_path / "bundle/encoder.fp32.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(EngineError, match="has changed since the bundle was verified"):
        engine.restart()
    assert engine.run(*batch(1), ("mean",))["mean"].shape == (1, 144)  # with the sessions that it has


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "built_for", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"ONNX Runtime has no CUDA; install landmoe\[gpu\]"):
        make_engine(Settings(provider="cuda"))


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA may work here")
def test_a_build_with_cuda_on_a_machine_without_it_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(providers, "built_for", lambda: offered)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):  # ONNX Runtime's own, beside our line
        assert make_engine(Settings(engine_threads=1)).provider == "cpu"
    with (
        pytest.raises(EngineError, match="cannot use cuda here"),
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
    ):
        make_engine(Settings(provider="cuda"))
