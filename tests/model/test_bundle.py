"""The bundle format: what is written is read back, and whatever was tampered with is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import bundle, manifest
from model.bundle import BundleError
from model.config import PREPROCESSING_VERSION, SIZES, Preprocessing
from tests.model.written_bundle import ENCODER, write


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest in place."""
    file = path / "bundle.json"
    record = json.loads(file.read_text("utf-8"))
    change(record)
    file.write_text(json.dumps(record), "utf-8")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "deep" / "bundle")
    loaded = bundle.load(tmp_path / "deep" / "bundle")
    assert loaded == written
    assert (loaded.name, loaded.version, loaded.trained) == ("landmoe-test", "0.1.0", False)
    assert loaded.config == SIZES["XXS"]
    assert loaded.preprocessing == Preprocessing()
    assert loaded.card == "# Test\n\nÜber nothing.\n"
    assert loaded.precisions == ("fp32",)
    assert loaded.encoder_path().read_bytes() == ENCODER
    assert loaded.encoder_digest() == hashlib.sha256(ENCODER).hexdigest()
    assert set(loaded.files) == {"card.md", "encoder.fp32.onnx", "probes/bigearthnet-19.safetensors"}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["bundle"]  # nothing temporary is left


def test_precision_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(BundleError, match="no 'fp16' encoder; it has fp32"):
        bundle.load(folder).encoder_path("fp16")


def test_digest_is_that_of_the_canonical_manifest(folder: Path) -> None:
    before = bundle.load(folder).digest
    record = json.loads((folder / "bundle.json").read_text("utf-8"))
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert before == hashlib.sha256(text.encode()).hexdigest()
    reordered = dict(reversed(record.items()))
    (folder / "bundle.json").write_text(json.dumps(reordered, indent=7), "utf-8")
    assert bundle.load(folder).digest == before


@pytest.mark.parametrize(
    "change",
    [{"card": "other"}, {"version": "0.1.1"}, {"trained": True}, {"files": {"encoder.fp32.onnx": b"other"}}],
)
def test_digest_changes_with_any_content(tmp_path: Path, change: dict[str, Any]) -> None:
    assert write(tmp_path / "a").digest != write(tmp_path / "b", **change).digest
    assert write(tmp_path / "c").digest == write(tmp_path / "d").digest


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*nowhere: expected a folder with bundle\.json"):
        bundle.load(tmp_path / "nowhere")


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        bundle.load(tmp_path)


@pytest.mark.parametrize("name", ["encoder.fp32.onnx", "card.md", "probes/bigearthnet-19.safetensors"])
def test_damaged_file_is_named_with_both_digests(folder: Path, name: str) -> None:
    file = folder / name
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(BundleError) as caught:
        bundle.load(folder)
    for part in (name, expected, hashlib.sha256(damaged).hexdigest()):
        assert part in str(caught.value)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "probes" / "bigearthnet-19.safetensors").unlink()
    with pytest.raises(BundleError, match=r"incomplete: probes/bigearthnet-19\.safetensors missing"):
        bundle.load(folder)


def test_surplus_file_is_named_but_hidden_ones_pass(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.onnx binary")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "notes").write_text("of a download tool")
    (folder / "README.md").write_text("what a hub shows of the repository")
    bundle.load(folder)
    (folder / "probes" / "surplus.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"does not list: probes/surplus\.bin"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format="other"), "format is 'other', expected 'landmoe-bundle'"),
        (lambda r: r.pop("format"), "format is None"),
        (lambda r: r.update(format_version=2), "format version 2; this program reads 1"),
        (lambda r: r.pop("metrics"), r"missing \['metrics'\], unknown nothing"),
        (lambda r: r.update(author="me"), r"missing nothing, unknown \['author'\]"),
        (lambda r: r.update(trained="yes"), "trained is str, expected bool"),
        (lambda r: r.update(name="a\nb"), "name is 'a\\\\nb'"),
        (lambda r: r.update(version=""), "version is ''"),
        (lambda r: r["config"].update(depth=2), "depth is 2"),
        (lambda r: r["config"].update(layers=2), r"ModelConfig: missing nothing, unknown \['layers'\]"),
        (lambda r: r["preprocessing"].update(mean=3), r"bundle\.json: object of type 'int'"),
        (lambda r: r["preprocessing"].update(nodata_fill="zero"), "nodata_fill is 'zero'"),
        (lambda r: r["preprocessing"].update(version=PREPROCESSING_VERSION + 1), "newer landmoe is needed"),
        (lambda r: r["files"].pop("card.md"), r"expected card\.md and encoder\.<precision>\.onnx"),
        (lambda r: r["files"].pop("encoder.fp32.onnx"), "expected card"),
        (lambda r: r["files"].update({"card.md": "abc"}), r"SHA-256 of card\.md is 'abc'"),
        (lambda r: r["files"].update({"card.md": 5}), r"SHA-256 of card\.md is 5"),
        (lambda r: r["files"].update({f"f{i}": "0" * 64 for i in range(400)}), "at most 256"),
    ],
)
def test_foreign_manifest(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=message):
        bundle.load(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"format": NaN}',
        '{"format": "a", "format": "b"}',
        "[" * 100_000,
        "\udcff",
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
    ],
)
def test_manifest_that_is_not_ours_or_not_json(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"not a bundle|not valid JSON|not UTF-8"):
        bundle.load(folder)


@settings(deadline=None)  # the first example writes to a cold disk
@given(st.binary(max_size=200))
def test_any_bytes_as_manifest_give_a_bundle_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any")
    (path / "bundle.json").write_bytes(data)
    with pytest.raises(BundleError):
        bundle.load(path)


@pytest.mark.parametrize(
    "name",
    ["../escape", "/etc/hostname", "probes/../../escape", "a\\b", ".hidden", "", "bundle.json", "a//b"],
)
def test_names_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    edit(folder, lambda r: r["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="cannot be the name of a file"):
        bundle.load(folder)
    with pytest.raises(BundleError, match="cannot be the name of a file"):
        write(tmp_path / "new", files={"encoder.fp32.onnx": ENCODER, name: b""})
    assert not (tmp_path / "new").exists()


def test_too_large_files_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "bundle.json").open("ab") as file:
        file.truncate(manifest.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match=r"bundle\.json has 4194305 bytes; expected at most 4194304"):
        bundle.load(folder)
    other = write(folder.parent / "other").path
    monkeypatch.setattr(manifest, "MAX_FILE_BYTES", 10)
    with pytest.raises(BundleError, match="expected at most 10"):
        bundle.load(other)


def test_links_to_files_count_by_their_digest_and_links_to_folders_are_refused(folder: Path) -> None:
    blob = folder.parent / "blob"
    (folder / "card.md").rename(blob)
    (folder / "card.md").symlink_to(blob)
    assert bundle.load(folder).card.startswith("# Test")
    blob.write_text("other")
    with pytest.raises(BundleError, match=r"card\.md is damaged"):
        bundle.load(folder)

    linked = write(folder.parent / "linked").path
    (linked / "probes").rename(folder.parent / "probes")
    (linked / "probes").symlink_to(folder.parent / "probes")
    with pytest.raises(BundleError, match="probes is a link; expected a folder"):
        bundle.load(linked)


def test_fifo_is_refused_and_does_not_block(folder: Path) -> None:
    (folder / "encoder.fp32.onnx").unlink()
    os.mkfifo(folder / "encoder.fp32.onnx")
    with pytest.raises(BundleError, match=r"encoder\.fp32\.onnx is not a regular file"):
        bundle.load(folder)


def test_import_needs_no_torch_and_no_runtime() -> None:
    code = (
        "import sys, model.bundle; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
