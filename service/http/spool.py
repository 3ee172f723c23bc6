"""Large bodies and answers wait on disk, in files without a name.

The file system frees such a file when its last descriptor is closed, however the process ends: nothing is
left behind by a client that goes away, nor by a crash.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

from service.errors import ServiceError
from service.http.in_thread import in_thread

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CHUNK_BYTES = 1 << 20  # what is sent at once of an answer on disk


class SpoolError(ServiceError):
    """There is no room to spool."""

    def __init__(self, detail: str) -> None:
        super().__init__("no-room", f"{detail}; try again later, or send less at once")


class Spool:
    """The folder for files without a name, and how much they may hold together.

    Args:
        folder: on disk, made if missing; the system's temporary one if None.
        memory_bytes: of a body or an answer that stay in memory; what is larger goes to disk.
        max_bytes: on disk at a time, of this process.
    """

    def __init__(self, folder: Path | None, memory_bytes: int, max_bytes: int) -> None:
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder
        self.memory_bytes = memory_bytes
        self._max_bytes = max_bytes
        self.used = 0
        self._lock = threading.RLock()  # what is counted here may collect a file, which is given back

    def prepare(self) -> None:
        """Makes the folder and tries it.

        Raises:
            OSError: files cannot be made in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.folder).close()

    def share(self) -> Share:
        """Memory for one body or one answer."""
        return Share(self)

    def check(self, size: int) -> None:
        """Refuses what is announced to be larger than the room there is.

        Raises:
            SpoolError: there is no room.
        """
        if size <= self.memory_bytes:
            return
        free = min(self._max_bytes - self.used, _free(self.folder))
        if size > free:
            raise SpoolError(f"{size:,} bytes are to be spooled and there is room for {max(0, free):,}")

    def take(self, size: int) -> None:
        """Counts bytes about to be written to disk.

        Raises:
            SpoolError: they would be too many.
        """
        with self._lock:
            if self.used + size > self._max_bytes:
                raise SpoolError(
                    f"{self.used:,} bytes are spooled and {size:,} more came; at most {self._max_bytes:,} "
                    "are allowed (LANDMOE_MAX_SPOOL_MB)"
                )
            self.used += size

    def give_back(self, size: int) -> None:
        """Counts bytes that are no longer on disk."""
        with self._lock:
            self.used -= size


class Share:
    """What one body or answer may keep in memory; its files share it."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.left = spool.memory_bytes

    def open(self) -> SpoolFile:
        """An empty file."""
        return SpoolFile(self)


class SpoolFile:
    """A file in memory as long as its share of it lasts, then on disk without a name.

    Writing raises SpoolError where there is no room.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._file: IO[bytes] = io.BytesIO()
        self._lock = threading.Lock()
        # By these two names starlette's UploadFile asks whether writing may block.
        self._rolled = False
        self._max_size = share.left
        self._counted = 0  # bytes of the share, or of the disk

    @property
    def on_disk(self) -> bool:
        """Whether it has left memory."""
        return self._rolled

    @property
    def closed(self) -> bool:
        """Whether it is freed."""
        return self._file.closed

    @property
    def size(self) -> int:
        """Bytes in it."""
        position = self._file.tell()
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(position)
        return end

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """A path by which this process can open it within the `with` block; it is on disk afterwards.

        The descriptor in the path is one of its own: when the file is closed meanwhile, because the client
        has gone, its number must not come to mean another file.
        """
        with self._lock:
            if not self._rolled:
                self._to_disk()
            self.flush()
            descriptor = os.dup(self._file.fileno())
        try:
            yield Path(f"/dev/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def write(self, data: Any) -> int:
        """Writes bytes at the position."""
        size = len(data)
        with self._lock:  # who closes it meanwhile waits, and frees all of it
            if self.closed:
                raise ValueError("write to a closed file")
            if not self._rolled:
                if size <= self._share.left:
                    self._share.left -= size
                    self._counted += size
                    return self._file.write(data)
                self._to_disk()
            self._share.spool.take(size)
            self._counted += size
            try:
                return self._file.write(data)
            except OSError as error:
                raise explained(error) from error

    def read(self, size: int = -1) -> bytes:
        """Reads bytes from the position."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def getvalue(self) -> bytes:
        """Everything in it."""
        if isinstance(self._file, io.BytesIO):
            return self._file.getvalue()
        self._file.seek(0)
        return self._file.read()

    def flush(self) -> None:
        """Hands everything to the file system."""
        try:
            self._file.flush()
        except OSError as error:
            raise explained(error) from error

    def close(self) -> None:
        """Frees it."""
        with self._lock:
            # What was buffered and found no room is not wanted any more.
            with contextlib.suppress(OSError):
                self._file.close()
            if self._rolled:
                self._share.spool.give_back(self._counted)
            else:
                self._share.left += self._counted
            self._counted = 0

    def __del__(self) -> None:
        self.close()

    def _to_disk(self) -> None:
        self._share.spool.take(self._counted)
        memory = self._file
        try:
            with contextlib.ExitStack() as on_error:
                disk = on_error.enter_context(tempfile.TemporaryFile(dir=self._share.spool.folder))
                disk.write(memory.getvalue())  # type: ignore[attr-defined]  # it was made as BytesIO
                disk.seek(memory.tell())
                on_error.pop_all()
        except OSError as error:
            self._share.spool.give_back(self._counted)
            raise explained(error) from error
        self._file, self._rolled = disk, True
        self._share.left += self._counted


async def chunks(file: SpoolFile) -> AsyncIterator[bytes]:
    """The bytes of a file for an answer; it is closed at the end, or when the client has gone."""
    try:
        await in_thread(file.seek, 0)
        while chunk := await in_thread(file.read, _CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


def explained(error: OSError) -> SpoolError:
    """What a failure of the file system means: the disk is full, or the folder cannot be used any more."""
    what = "the disk is full" if error.errno in _FULL else "the spool cannot be used"
    return SpoolError(f"{what} ({error.strerror or error})")


def _free(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:  # no such call, or no folder yet: writing will tell
        return 1 << 62
    return found.f_bavail * found.f_frsize
