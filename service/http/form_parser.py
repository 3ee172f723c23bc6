"""The parts of a form as they stream in: files to the spool, fields to memory, both bounded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.files import DELIVERY_PARTS, TILE_PART
from service.http.spool import Share

if TYPE_CHECKING:
    from tempfile import SpooledTemporaryFile

_FILE_PARTS = frozenset({TILE_PART, *DELIVERY_PARTS})
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
# RFC 8187. RFC 7578 wants none in a form; .NET sends one beside a `filename` that it writes as mail does.
_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^\s;]*)", re.IGNORECASE)
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
        part = self._current_part
        given = part.content_disposition or b""
        extended = _EXTENDED_NAME.search(_QUOTED.sub(b'""', given)) if b"*" in given else None
        if b"filename=" not in given.lower() and (extended or _is_file(part.item_headers, given)):
            part.content_disposition = given + b'; filename=""'
        super().on_headers_finished()
        if extended and part.file is not None:
            coding, name = (piece.decode("latin-1") for piece in extended.groups())
            part.file.filename = unquote(name, coding)
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
        name, is_field = self._current_part.field_name, self._current_part.file is None
        most = _FIELDS_TOGETHER * self.max_part_size
        self._field_bytes += (end - start) * is_field
        try:
            if is_field and self._field_bytes > most:
                raise MultiPartException(f"Too many bytes in form fields. Maximum of all is {most:,}.")
            super().on_part_data(data, start, end)
        except MultiPartException as error:
            if name not in _FILE_PARTS:
                raise
            raise MultiPartException(
                f"{error.message} The part {name!r} has no filename and was taken for a text: a file has one"
            ) from error

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


def _is_file(headers: list[tuple[bytes, bytes]], disposition: bytes) -> bool:
    """Whether a part without a file name is one all the same, since it says that it is no text."""
    kind = next((value.strip().lower() for name, value in headers if name == b"content-type"), b"")
    if not kind or kind.startswith((b"text/", b"application/json")):
        return False
    return parse_options_header(disposition)[1].get(b"name", b"").decode("latin-1") in _FILE_PARTS
