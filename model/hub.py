"""Bundles and checkpoints from a Hugging Face hub: `hf://owner/name[/file][@revision]`.

Cache, offline mode, token and endpoint are huggingface_hub's own (HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
HF_TOKEN, HF_ENDPOINT). What is added here: sizes are checked before anything is downloaded, a bundle's files
are all of one commit, only files that its manifest lists are fetched, the cached bytes are verified against
the hub's own checksum at every use, and every failure is one line.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from model import manifest

SCHEME = "hf:"

# A Path keeps one of the two slashes, and a setting or an argument may have been one.
_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?:/(?P<file>[\w.+/-]{1,400}))?(?:@(?P<revision>[\w./-]{1,200}))?",
    re.ASCII,
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")


class HubError(ValueError):
    """An address that is none, or files that cannot be had from a hub: what and why, in one line."""


@dataclass(frozen=True)
class Address:
    """Where something lies on a hub."""

    repository: str  # owner/name
    file: str | None  # within the repository; None for all of it
    revision: str | None  # branch, tag or commit; None for the default branch

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"hf://{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")


def is_address(source: str | Path | None) -> bool:
    """Whether a source means a hub and not a path."""
    return source is not None and str(source).startswith(SCHEME)


def parse(source: str | Path) -> Address:
    """`hf://owner/name[/file][@revision]` → its parts.

    Raises:
        HubError: not of that form.
    """
    match = _ADDRESS.fullmatch(str(source))
    if match is None or ".." in str(source):
        raise HubError(f"{str(source)[:300]!r} is no address; expected hf://owner/name[/file][@revision]")
    return Address(match["repository"], match["file"], match["revision"])


def fetch_bundle(source: str | Path) -> Path:
    """The folder of a bundle, downloaded if it is not in the cache; `bundle.load` verifies what is in it.

    Without a network the cached commit of that revision is used.

    Raises:
        HubError: no such repository or revision, no access, no network and nothing cached, damaged in the
            cache.
        BundleError: the repository holds no bundle.
    """
    address = parse(source)
    if address.file is not None:
        raise HubError(
            f"{address} names a file; expected the bundle's repository, hf://owner/name[@revision]"
        )
    folder = _fetch(address, manifest.MANIFEST, address.revision, manifest.MAX_MANIFEST_BYTES).parent
    for file in manifest.listed(folder):
        _fetch(address, file, folder.name, manifest.MAX_FILE_BYTES)  # the folder is named after the commit
    return folder


def fetch_file(source: str | Path) -> Path:
    """One file, downloaded if it is not in the cache.

    Raises:
        HubError: as `fetch_bundle`, or the address names no file, or one of more than 2 GiB.
    """
    address = parse(source)
    if address.file is None:
        raise HubError(f"{address} names no file; expected hf://owner/name/file[@revision]")
    return _fetch(address, address.file, address.revision, manifest.MAX_FILE_BYTES)


def _fetch(address: Address, file: str, revision: str | None, limit: int) -> Path:
    # Imported only here: most services load their bundle from a folder.
    from huggingface_hub import hf_hub_download

    # It has a handler of its own: each line would come twice, and once not in the form of the program's log.
    logging.getLogger("huggingface_hub").handlers.clear()
    repository = address.repository
    try:
        known = hf_hub_download(repository, file, revision=revision, library_name="landmoe", dry_run=True)
        if known.file_size is None or known.file_size > limit:
            size = "an unknown number of" if known.file_size is None else known.file_size
            raise HubError(f"{address}: {file} has {size} bytes; expected at most {limit}")
        path = Path(hf_hub_download(repository, file, revision=revision, library_name="landmoe"))
    except HubError:
        raise
    except Exception as error:  # the library lets its HTTP client's errors through, of which it has several
        raise HubError(f"{address}: {_reason(error, file, revision)}") from error
    _verify(path, address)
    return path


def _reason(error: Exception, file: str, revision: str | None) -> str:
    """What went wrong, in one line that says what to do."""
    from huggingface_hub import constants, errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    match error:
        case errors.GatedRepoError():
            return (
                "its owner asks for an agreement; accept it on its page and set HF_TOKEN to a token of yours"
            )
        case errors.RepositoryNotFoundError():
            return (
                f"{constants.ENDPOINT} has no such repository, or a private one: check the name or HF_TOKEN"
            )
        case errors.RevisionNotFoundError():
            return f"it has no revision {revision or 'main'}"
        case errors.LocalEntryNotFoundError() if constants.is_offline_mode():
            return (
                f"{file} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it"
            )
        case errors.LocalEntryNotFoundError():
            cause = _line(error.__cause__)
            return f"{file} is not in the cache, and {constants.ENDPOINT} gave no answer ({cause})"
        case errors.EntryNotFoundError():
            return f"it has no file {file}" + (f" in revision {revision}" if revision else "")
        case _ if status in (401, 403):
            return f"{constants.ENDPOINT} refuses access ({status}); check HF_TOKEN and what it may read"
        case _:
            return f"{file} could not be fetched ({_line(error)})"


def _line(error: BaseException | None) -> str:
    text = " ".join(str(error).split())[:300] if error else ""
    return text or type(error).__name__


def _verify(path: Path, address: Address) -> None:
    """Checks a cached file against the hub's checksum, which is the name of the blob that it links to.

    That is a SHA-256 for large files and git's for the others. Other servers may name blobs as they like, and
    a cache without links keeps no names: then only the size is known, and a bundle's own digests decide.
    """
    if not path.is_symlink():
        return
    blob = path.readlink().name
    if _SHA256.fullmatch(blob):
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    elif _GIT_BLOB.fullmatch(blob):
        started = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, lambda: started).hexdigest()
    else:
        return
    if actual != blob:
        raise HubError(
            f"{address}: {path.name} is damaged: its checksum is {actual}, the hub's is {blob}; "
            f"remove {path.resolve()} and try again"
        )
