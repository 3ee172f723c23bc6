"""A command's answers, on disk until its output is written: interrupted work goes on from there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from service.clients.errors import InputError
from service.clients.links import is_link
from service.clients.tile_requests import TileRequest
from service.clients.tiles import Tile, unicode
from service.json_text import dumps
from service.rasters import delivery

_DIGEST_BYTES = 20


class KeptAnswers:
    """Bodies of answers, each under the digest of all that decides it. Use it with `with`.

    They lie in a hidden folder beside the output, or in memory where there is no such file or no room.

    Args:
        output: what the command writes; `-` is standard output.
        afresh: what an earlier run left is not used.

    Attributes:
        folder: where they lie; None for in memory.
        tiles: whose answers are known to be here for another run; counted by whoever asks.

    Raises:
        InputError: another run writes the same output.
    """

    def __init__(self, output: Path, *, afresh: bool = False) -> None:
        on_disk = str(output) != "-" and (output.is_file() or not output.exists())
        output = output.resolve()
        self.folder = output.parent / f".{output.name}.unfinished" if on_disk else None
        self.tiles = 0
        self._memory: dict[str, bytes] = {}
        self._lock: int | None = None
        if self.folder is not None:
            self._open(self.folder, output, afresh)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self.folder is not None:
            with suppress(OSError):
                self.folder.rmdir()  # where nothing was kept
        if self._lock is not None:
            os.close(self._lock)

    def __contains__(self, key: str) -> bool:
        return key in self._memory or (self.folder is not None and (self.folder / key).is_file())

    def __getitem__(self, key: str) -> bytes:
        if self.folder is None or key in self._memory:
            return self._memory[key]
        return (self.folder / key).read_bytes()

    def __setitem__(self, key: str, body: bytes) -> None:
        if self.folder is None:
            self._memory[key] = body
            return
        unfinished = self.folder / f"{key}.part"
        try:
            with unfinished.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.folder / key)  # whole or not at all, also where the machine stops
        except OSError:  # the disk is full: the work is worth more than that it can be resumed
            with suppress(OSError):
                unfinished.unlink()
            self._memory[key] = body

    def lasts(self, key: str) -> bool:
        """Whether it is here, and on disk: for another run."""
        return key in self and key not in self._memory

    def discard(self) -> None:
        """Forgets all of them: the output is written."""
        self._memory.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self, folder: Path, output: Path, afresh: bool) -> None:
        try:
            folder.mkdir(exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(cast(int, self._lock))
            raise InputError(f"{output}: another run is writing it; expected one at a time") from error
        except OSError:
            if self._lock is None:  # else it is a file system without locks
                self.folder = None
                return
        if afresh:
            for left in folder.iterdir():
                left.unlink()


def answer_key(
    model: Mapping[str, Any], route: str, request: TileRequest, options: Mapping[str, Any]
) -> str | None:
    """What an answer is kept under: of the model, the files as they are now, and all that is said of them.

    Args:
        model: as GET /model says.
        route: /embed or /classify.
        request: that is answered.
        options: all others, with the format of the answer.

    Returns:
        Hexadecimal digits; None where a file cannot be read, or a folder is no delivery.
    """
    try:
        said = [
            {name: model.get(name) for name in ("name", "version", "digest", "precision")},
            route,
            sorted((name, str(value)) for name, value in options.items() if value is not None),
            [[_identity(tile), tile.name, tile.fields()] for tile in request.tiles],
        ]
    except (OSError, delivery.DeliveryError):
        return None
    return hashlib.blake2b(dumps(said), digest_size=_DIGEST_BYTES).hexdigest()


def _identity(tile: Tile) -> list[tuple[str, int, int]]:
    """Path, size and time of change of each file; no two files differ that have all three in common.

    The path as an address, which tells all names apart, also those that are no UTF-8. Of a URL nothing more
    is known: what lies at it is taken to stay the same while a command is interrupted.
    """
    if isinstance(tile.data, Mapping):
        places = list(tile.data.values())
    elif tile.path is not None and tile.is_delivery:
        # What else is in a folder does not matter; the output may be.
        places = list(delivery.find(tile.path).values())
    else:
        places = [cast(str, tile.data)]  # a command line names no arrays
    return [(unicode(place), 0, 0) if is_link(place) else _file_identity(Path(place)) for place in places]


def _file_identity(file: Path) -> tuple[str, int, int]:
    stat = file.stat()
    return file.absolute().as_uri(), stat.st_size, stat.st_mtime_ns
