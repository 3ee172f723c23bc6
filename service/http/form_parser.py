"""The parts of a form as they stream in: files to the spool, fields to memory, both bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.files import TILE_PART
from service.http.spool import Share

if TYPE_CHECKING:
    from tempfile import SpooledTemporaryFile

_FIELDS_TOGETHER = 4  # times the largest field: what all fields of a form may come to


class FormParser(MultiPartParser):
    """Starlette's parser, which takes a form that breaks off for a whole one, with our own spooling."""

    ended = False
    share: Share
    max_tiles: int
    _tiles = 0
    _field_bytes = 0

    def on_headers_finished(self) -> None:
        """A part begins; if it is a file, it is kept in our spool."""
        super().on_headers_finished()
        if (made := self._current_part.file) is not None:
            self._tiles += self._current_part.field_name == TILE_PART
            if self._tiles > self.max_tiles:
                raise MultiPartException(f"Too many tiles. Maximum number of tiles is {self.max_tiles}.")
            made.file.close()
            file = self.share.open()
            self._files_to_close_on_error[-1] = cast("SpooledTemporaryFile[bytes]", file)
            self._current_part.file = UploadFile(
                cast(BinaryIO, file), size=0, filename=made.filename, headers=made.headers
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part; fields stay in memory, where there is not room for any number of them."""
        if self._current_part.file is None:
            self._field_bytes += end - start
            most = _FIELDS_TOGETHER * self.max_part_size
            if self._field_bytes > most:
                raise MultiPartException(f"Too many bytes in form fields. Maximum of all is {most:,}.")
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        """The closing boundary has come."""
        self.ended = True

    async def parse_to_the_end(self) -> FormData:
        """The form.

        Raises:
            MultiPartException: it is damaged, over the limits, or breaks off.
        """
        form = await self.parse()
        if not self.ended:
            for file in self._files_to_close_on_error:  # the part that broke off is not in the form
                file.close()
            raise MultiPartException("it ends before its closing boundary")
        return form
