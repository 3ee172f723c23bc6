"""Packing once, again, interrupted or in several processes gives one set; what is no set is left alone."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model.config import PREPROCESSING_VERSION
from tests.rasters import dn_pixels, geotiff
from tests.training.packed import npz, packed, packing, write
from training import shards
from training.cli import app
from training.pack import PackConfig, pack, report
from training.shards import PackError, open_packed

NOTHING_ELSE = json.dumps({"format": 1, "preprocessing_version": PREPROCESSING_VERSION})


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def test_packing_again_changes_nothing(tmp_path: Path) -> None:
    packed(tmp_path)
    before = snapshot(tmp_path / "packed/shards")
    manifest = (tmp_path / "packed/manifest.json").read_bytes()
    packed_again = PackConfig.model_validate(json.loads(manifest)["config"])
    pack(packed_again, tmp_path, tmp_path / "packed", workers=1, quiet=True)
    after = snapshot(tmp_path / "packed/shards")
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in before.items()}
    pixels = [k for k in before if k.endswith("pixels.npy")]
    assert pixels
    assert all(before[k] == after[k] for k in pixels)  # not even rewritten
    assert (tmp_path / "packed/manifest.json").read_bytes() == manifest


def test_interrupted_packing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        npz(tmp_path / f"{name}.npz", 4)
    sources = [{"name": n, "kind": "npz", "path": f"{n}.npz"} for n in ("a", "b", "c")]
    write_shard = shards.write_shard
    written: list[str] = []

    def failing(folder: Path, *args: object) -> None:
        if len(written) == 2:
            folder.with_name(f"{folder.name}.partial").mkdir()
            raise KeyboardInterrupt
        written.append(folder.name)
        write_shard(folder, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        packing(tmp_path, *sources)
    with pytest.raises(PackError, match=r"no manifest\.json"):
        open_packed(tmp_path / "packed")
    monkeypatch.setattr(shards, "write_shard", lambda f, *a: (written.append(f.name), write_shard(f, *a)))
    found = packing(tmp_path, *sources)
    assert found.count == 12
    assert [n[0] for n in written] == ["a", "b", "c"]  # each once
    assert not list((tmp_path / "packed/shards").glob("*.partial"))


def test_changed_files_are_packed_anew_and_removed_sources_go(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", 4)
    npz(tmp_path / "b.npz", 4)
    both = [{"name": n, "kind": "npz", "path": f"{n}.npz"} for n in ("a", "b")]
    packing(tmp_path, *both)
    npz(tmp_path / "a.npz", 6)
    os.utime(tmp_path / "a.npz", ns=(1, 1))
    found = packing(tmp_path, both[0])
    assert found.count == 6
    assert len(list((tmp_path / "packed/shards").iterdir())) == 1


def test_worker_processes_give_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        npz(tmp_path / f"{name}.npz", 4)
    config = PackConfig.model_validate(
        {"sources": [{"name": n, "kind": "npz", "path": f"{n}.npz"} for n in ("a", "b")]}
    )
    one = pack(config, tmp_path, tmp_path / "one", workers=1, quiet=True)
    two = pack(config, tmp_path, tmp_path / "two", workers=2, quiet=True)
    assert one.manifest == two.manifest
    np.testing.assert_array_equal(one.column("pixels"), two.column("pixels"))


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", 4)
    (tmp_path / "mine/shards").mkdir(parents=True)
    write(tmp_path / "mine/shards/precious.txt", b"x")
    with pytest.raises(PackError, match="holds other files"):
        packing(tmp_path, {"name": "a", "kind": "npz", "path": "a.npz"}, out="mine")
    assert (tmp_path / "mine/shards/precious.txt").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p.path / "manifest.json").write_text("{"), "not JSON"),
        (lambda p: (p.path / "manifest.json").write_text('{"format": 99}'), "format 99, expected 1"),
        (lambda p: (p.path / "manifest.json").write_text("[]"), "format None, expected 1"),
        (lambda p: (p.path / "manifest.json").write_text(NOTHING_ELSE), "not as `pack` writes it"),
        (lambda p: (p.path / "manifest.json").write_bytes(b"\xff"), "not JSON"),
        (lambda p: (p.shards[0].path / "encodings.npy").unlink(), "encodings"),
        (lambda p: (p.shards[0].path / "encodings.npy").write_bytes(b"junk"), "encodings"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, message: str) -> None:
    damage(packed(tmp_path))  # type: ignore[operator]
    with pytest.raises(PackError, match=message):
        open_packed(tmp_path / "packed").column("encodings")


def test_a_set_that_was_prepared_by_other_rules_is_packed_again(tmp_path: Path) -> None:
    packed(tmp_path)
    manifest = tmp_path / "packed/manifest.json"
    said = json.loads(manifest.read_text())
    for version in (said["preprocessing_version"] - 1, None):
        manifest.write_text(json.dumps(said | {"preprocessing_version": version}))
        with pytest.raises(PackError, match=r"rules of preparation.*pack again"):
            open_packed(tmp_path / "packed")
    config = PackConfig.model_validate(said["config"])
    assert pack(config, tmp_path, tmp_path / "packed", workers=1, quiet=True).count > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "does not exist"),
        (["--units", "furlongs", "{tile}"], "units"),
        ([], "either paths or --config"),
        (["--config", "{tile}"], "tile.tif"),
    ],
)
def test_command_reports_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    tile = write(tmp_path / "tile.tif", geotiff())
    given = [a.format(tile=tile) for a in arguments]
    result = CliRunner().invoke(app, ["pack", *given, "-o", str(tmp_path / "out"), "--workers", "1"])
    assert result.exit_code != 0
    assert message in result.output
    assert not isinstance(result.exception, Exception)  # SystemExit is none


def test_changed_labels_are_packed_anew(tmp_path: Path) -> None:
    write(tmp_path / "ben/images/x.tif", geotiff())
    source = {"name": "ben", "kind": "bigearthnet", "path": "ben"}
    assert packing(tmp_path, source).column("labels").tolist() == [""]
    write(tmp_path / "ben/labels/x.json", b'{"labels": ["Pastures"]}')
    assert packing(tmp_path, source).column("labels").tolist() == ["Pastures"]
    write(tmp_path / "ben/labels/x.json", b"[]")
    with pytest.raises(PackError, match="no list 'labels'"):
        packing(tmp_path, source)


def test_values_that_are_odd_are_told_once_for_each_file(tmp_path: Path) -> None:
    write(tmp_path / "tiles/good.tif", geotiff())
    write(tmp_path / "tiles/tagged.tif", geotiff(scales=[2.75e-5] * 7, offsets=[0] * 7))
    write(tmp_path / "tiles/scene.tif", geotiff(dn_pixels(80, 120), scales=[2.75e-5] * 7, offsets=[0] * 7))
    out = tmp_path / "out"
    given = ["pack", str(tmp_path / "tiles"), "-o", str(out), "--workers", "1"]
    for _ in range(2):  # told again where all is there
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        assert "files with warnings: assumed-offset (2): " in result.output.replace("\n", " ")
    with (out / "warnings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == [
        str(tmp_path / "tiles/scene.tif"), str(tmp_path / "tiles/tagged.tif"),
    ]  # fmt: skip
    assert all("came without offset" in row["message"] for row in rows)
    assert CliRunner().invoke(app, [*given, "--units", "dn"]).output.count("warnings") == 0


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    for year in ("2020", "2021"):
        write(tmp_path / "tiles" / year / "a.tif", geotiff(scales=[2.75e-5] * 7, offsets=[0] * 7))
    found = packing(tmp_path, {"name": "tiles", "kind": "folder", "path": "tiles"})
    assert found.manifest["warned"] == {"assumed-offset": 2}
    with (found.path / "warnings.csv").open() as file:
        paths = [Path(row["file"]) for row in csv.DictReader(file)]
    assert sorted(path.parent.name for path in paths) == ["2020", "2021"]


def test_the_report_counts_in_english(tmp_path: Path) -> None:
    write(tmp_path / "tiles/one.tif", geotiff(dn_pixels()))
    found = packing(tmp_path, {"name": "tiles", "kind": "folder", "path": "tiles"})
    assert report(found).startswith(f"{found.path}: 1 tile in 1 shard\n  ")
    assert report(found).endswith(": 1 tile of 1 place")
