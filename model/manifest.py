"""The manifest of a bundle, bundle.json: its form, its limits, and the check of the files that it lists.

A bundle may come from anywhere. So names are plain before they touch the file system, sizes are checked
before bytes are read, only regular files are opened, and a digest decides about each of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

FORMAT = "landmoe-bundle"
FORMAT_VERSION = 1
MANIFEST = "bundle.json"
CARD = "card.md"
HUB_PAGE = "README.md"  # what a hub shows of a repository: not ours, but beside every bundle on one

# Generous for what a bundle holds (10 MB for size S), small enough that a foreign folder is refused at once.
MAX_MANIFEST_BYTES = 4 << 20
MAX_CARD_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30  # the limit of a protobuf file, which ONNX is
MAX_FILES = 256

# Plain relative POSIX names: no "..", no absolute path, no hidden file, nothing that a shell would expand.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # name and version go into headers and metric labels
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENCODER = re.compile(r"encoder\.([a-z0-9]+)\.onnx")
_PROBE = re.compile(r"probes/([A-Za-z0-9_][A-Za-z0-9._-]{0,63})\.safetensors")
_FIELDS: dict[str, type] = {
    "format": str,
    "format_version": int,
    "name": str,
    "version": str,
    "trained": bool,
    "config": dict,
    "preprocessing": dict,
    "training": dict,
    "metrics": dict,
    "parity": dict,
    "files": dict,
}


class BundleError(ValueError):
    """A folder that is not a usable bundle: what was found, and what was expected."""


def read(path: Path, *, exact: bool = True) -> dict[str, Any]:
    """The manifest of the bundle in `path`, with every listed file verified.

    Links to files are followed, since download caches are made of them: the digest decides, wherever the
    bytes lie. Links to folders are refused. Hidden files (.DS_Store, .gitattributes, a download tool's
    notes) are nobody's and are passed over, and so is the page of a repository on a hub.

    Args:
        path: the bundle's folder.
        exact: whether a file that is not listed is an error. The folder of a download cache may hold what
            another tool has fetched of the same repository.

    Raises:
        BundleError: no such folder, no or another manifest, a format newer than this program, a file that is
            missing, surplus, too large or damaged.
    """
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: expected a folder with {MANIFEST}")
    manifest = _parse(path)
    files: dict[str, str] = manifest["files"]
    _check_listing(path, files)
    found = _found(path)
    if missing := sorted(files.keys() - found):
        raise BundleError(f"{path} is incomplete: {', '.join(missing)} missing")
    if exact and (surplus := sorted(found - files.keys() - {MANIFEST, HUB_PAGE})):
        raise BundleError(f"{path} holds files that {MANIFEST} does not list: {', '.join(surplus[:10])}")
    for name, expected in files.items():
        actual = sha256(path / name)
        if actual != expected:
            raise BundleError(
                f"{path / name} is damaged: its SHA-256 is {actual}, {MANIFEST} expects {expected}"
            )
    return manifest


def listed(path: Path) -> tuple[str, ...]:
    """Names of the files that the manifest in `path` lists, be they there or not.

    Raises:
        BundleError: no or another manifest, a format newer than this program, a name that does not fit.
    """
    files: dict[str, Any] = _parse(path)["files"]
    _check_listing(path, files)
    return tuple(files)


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a manifest of ours and no file that it does not list; digests do not matter."""
    try:
        listed: set[str] = {MANIFEST, *_parse(path)["files"]}
        return _found(path) <= listed
    except BundleError:
        return False


def encode(manifest: Mapping[str, Any]) -> bytes:
    """bundle.json as it is written: for people to read, the same bytes for the same contents.

    Raises:
        BundleError: a value that JSON does not have, for example NaN.
    """
    try:
        text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"{MANIFEST} cannot be written as JSON: {error}") from error


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest in canonical form: keys sorted, no white space, UTF-8."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(file: Path) -> str:
    """SHA-256 (hex) of a file of a bundle; raises BundleError if it cannot be read or is too large."""
    with _open(file, MAX_FILE_BYTES) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_text(file: Path, limit: int) -> str:
    """A UTF-8 file of a bundle, of at most `limit` bytes; raises BundleError if it is not that."""
    with _open(file, limit) as stream:
        try:
            return stream.read(limit).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{file} is not UTF-8 text: {error}") from error


def precision_of(name: str) -> str | None:
    """The precision in an encoder's file name; None for any other file."""
    match = _ENCODER.fullmatch(name)
    return match[1] if match else None


def probe_of(name: str) -> str | None:
    """The probe's name in its file name; None for any other file."""
    match = _PROBE.fullmatch(name)
    return match[1] if match else None


def probe_file(name: str) -> str:
    """The file of a probe within its bundle."""
    return f"probes/{name}.safetensors"


def check_file_name(name: str) -> None:
    """Raises BundleError unless `name` may be a file of a bundle."""
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
        raise BundleError(f"{name!r} cannot be the name of a file in a bundle")


def _parse(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    text = read_text(file, MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        digest(manifest)  # numbers beyond float64 and half surrogates pass the parser, but are no JSON
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != FORMAT:
        raise BundleError(f"{path} is not a bundle: its format is {found!r}, expected {FORMAT!r}")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(f"{path} has format version {version!r}; this program reads {FORMAT_VERSION}")
    if manifest.keys() != _FIELDS.keys():
        raise BundleError(
            f"{file}: missing {sorted(_FIELDS.keys() - manifest.keys()) or 'nothing'}, "
            f"unknown {sorted(manifest.keys() - _FIELDS.keys()) or 'nothing'}"
        )
    for key, kind in _FIELDS.items():
        value = manifest[key]
        if type(value) is not kind:
            raise BundleError(f"{file}: {key} is {type(value).__name__}, expected {kind.__name__}")
    for key in ("name", "version"):
        if not _LABEL.fullmatch(manifest[key]):
            raise BundleError(
                f"{file}: {key} is {manifest[key]!r}; expected at most 64 letters, digits and . _ + -, "
                "the first a letter or digit"
            )
    return dict(manifest)


def _check_listing(path: Path, files: Mapping[str, Any]) -> None:
    if len(files) > MAX_FILES:
        raise BundleError(f"{path} lists {len(files)} files; expected at most {MAX_FILES}")
    for name, value in files.items():
        check_file_name(name)
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise BundleError(
                f"{path / MANIFEST}: the SHA-256 of {name} is {value!r}; expected 64 hex digits"
            )
    if CARD not in files or not any(map(precision_of, files)):
        raise BundleError(
            f"{path / MANIFEST} lists {', '.join(sorted(files)) or 'no file'}; "
            f"expected {CARD} and encoder.<precision>.onnx among them"
        )


def _found(path: Path) -> set[str]:
    found: set[str] = set()
    for folder, folders, names in os.walk(path, followlinks=False):
        base = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if linked := [name for name in folders if (base / name).is_symlink()]:
            raise BundleError(f"{base / linked[0]} is a link; expected a folder")
        found.update((base / name).relative_to(path).as_posix() for name in names if name[0] != ".")
        if len(found) > MAX_FILES + 1:
            raise BundleError(f"{path} is not a bundle: it holds more than {MAX_FILES} files")
    return found


@contextmanager
def _open(file: Path, limit: int) -> Iterator[BufferedReader]:
    """Opens a regular file; a FIFO would block and a device never end, hence O_NONBLOCK and the check."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror or error}") from error
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{file} is not a regular file")
        if status.st_size > limit:
            raise BundleError(f"{file} has {status.st_size} bytes; expected at most {limit}")
        yield stream


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(f"a key is given twice among {[key for key, _ in pairs]}")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
