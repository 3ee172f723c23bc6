"""Write a bundle (see bundle.py): complete and verified before it appears under its name, or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model import manifest
from model.bundle import Bundle, load
from model.config import ModelConfig, Preprocessing
from model.manifest import CARD, FORMAT, FORMAT_VERSION, MANIFEST, BundleError
from model.probe import LinearProbe, encode


def write(
    path: Path,
    *,
    name: str,
    version: str,
    trained: bool,
    config: ModelConfig,
    preprocessing: Preprocessing,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    parity: Mapping[str, Any],
    card: str,
    files: Mapping[str, bytes | Path],
) -> Bundle:
    """Writes a bundle and returns it as `bundle.load` reads it back.

    The folder is complete and verified before it appears under its name: it is written beside and renamed.
    An existing bundle, even one with damaged files, is replaced; an empty folder is used; anything else, a
    bundle with files of somebody else in it included, is left alone.

    Args:
        path: the bundle's folder; its parents are made.
        name: at most 64 letters, digits and `. _ + -`; so is `version`.
        version: of the weights, for example "1.0.0".
        trained: False for a seeded network without training; the service then warns in every answer.
        config: of the network.
        preprocessing: how DN and metadata are prepared for it.
        training: data, licences and recipe, JSON-ready.
        metrics: with their protocol and baselines, JSON-ready.
        parity: measured error of each precision's encoder, JSON-ready.
        card: the model card, Markdown.
        files: the encoders and probes by name, as bytes or as a file to copy.

    Raises:
        BundleError: a name that does not fit, values that are not JSON, or a folder that is not a bundle.
    """
    path = Path(path).absolute()
    if not _replaceable(path):
        raise BundleError(f"{path} exists and is not a bundle; it is left alone")
    if (other := _not_ours(path)) is not None:
        kind = "link" if other.is_symlink() else "hidden file"
        raise BundleError(
            f"{path} holds {other.name}, a {kind}, as a hub's cache or a clone has, and is left alone: copy "
            "the files of the bundle into another folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    building.mkdir()
    try:
        contents: dict[str, bytes | Path] = {**files, CARD: card.encode()}
        for file, content in contents.items():
            manifest.check_file_name(file)
            target = building / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
        record = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": name,
            "version": version,
            "trained": trained,
            "config": config.to_dict(),
            "preprocessing": preprocessing.to_dict(),
            "training": dict(training),
            "metrics": dict(metrics),
            "parity": dict(parity),
            "files": {file: manifest.sha256(building / file) for file in contents},
        }
        (building / MANIFEST).write_bytes(manifest.encode(record))
        load(building)  # what cannot be read back never takes the place of what could
        _replace(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return load(path)


def add_probe(path: Path, name: str, probe: LinearProbe) -> Bundle:
    """Writes a bundle anew with one probe more, or with another one of that name, and returns it.

    Where there is none yet, a copy of the one in the package gets it.

    Raises:
        BundleError: no bundle, a name that does not fit, or a probe that does not fit the encoder.
    """
    bundle = load(path if path.exists() else None)
    if manifest.probe_of(manifest.probe_file(name)) != name:
        raise BundleError(f"{name!r} cannot be the name of a probe; expected letters, digits and . _ -")
    bundle.check_fits(name, probe)
    return rewrite(bundle, path, files={manifest.probe_file(name): encode(probe)})


def rewrite(
    bundle: Bundle,
    path: Path | None = None,
    *,
    metrics: Mapping[str, Any] | None = None,
    card: str | None = None,
    files: Mapping[str, bytes | Path] | None = None,
) -> Bundle:
    """Writes a bundle anew, or a copy of it elsewhere, with what is given in place of what it had.

    `files` join those it has.

    Raises:
        BundleError: as `write`.
    """
    kept: dict[str, bytes | Path] = {file: bundle.path / file for file in bundle.files if file != CARD}
    return write(
        path or bundle.path,
        name=bundle.name,
        version=bundle.version,
        trained=bundle.trained,
        config=bundle.config,
        preprocessing=bundle.preprocessing,
        training=bundle.training,
        metrics=bundle.metrics if metrics is None else metrics,
        parity=bundle.parity,
        card=bundle.card if card is None else card,
        files=kept | dict(files or {}),
    )


def _replaceable(path: Path) -> bool:
    if path.is_symlink() or not path.exists():
        return not path.is_symlink()
    return path.is_dir() and (not any(path.iterdir()) or manifest.is_bundle(path))


def _not_ours(path: Path) -> Path | None:
    """Something in a folder that a bundle may have beside it, and that would be lost with it."""
    return next((entry for entry in path.rglob("*") if entry.is_symlink() or entry.name[0] == "."), None)


def _replace(building: Path, path: Path) -> None:
    """Renames `building` to `path`; what was there is moved aside first, and back if that fails."""
    if not path.exists():
        building.rename(path)
        return
    old = building.with_suffix(".old")
    path.rename(old)
    try:
        building.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
