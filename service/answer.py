"""The answer to a request for tiles: its items, written in the format asked for, and its status."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response, StreamingResponse

from service import formats
from service.errors import PROBLEMS, code_of, problem, problem_response
from service.formats import Head, Item, Writer
from service.formats.npy import NpyWriter
from service.formats.raster import Grid, RasterWriter
from service.formats.text import GeojsonWriter, JsonWriter, NdjsonWriter
from service.http.in_thread import in_thread
from service.http.spool import Spool, SpoolFile, chunks
from service.outcomes import Outcome, Skipped, Tally
from service.parameters import Format
from service.products import Product
from service.results import Embedded, Report
from service.telemetry import metrics

# Numbers that are written on the event loop; more go to a thread (orjson writes a million in 20 ms).
_INLINE_NUMBERS = 20_000
WARNINGS = "X-Warnings"  # results by the codes of their warnings
MODEL = "X-Model"  # digest and precision of what computed
_INLINE_FORMATS = frozenset({"json", "base64", "npy", "ndjson", "geojson"})


Name = tuple[str | None, str | None]
"""What the request calls a tile, and the base name of its file."""


class HopelessError(Exception):
    """Nothing that is still to come can change that the request fails."""


class Answer:
    """Takes outcomes in their order and becomes the response.

    Args:
        format: how to write.
        product: what each item says of its tile.
        tally: of the request.
        spool: where a large answer waits until it is complete, so that its status and headers are true.
        request_id: for problems of items.
        names: id and source of each tile, which an item says that has nothing else.
    """

    def __init__(
        self,
        format: Format,  # noqa: A002  # the contract's word
        product: Product,
        tally: Tally,
        spool: Spool,
        request_id: str,
        names: Sequence[Name] = (),
    ) -> None:
        self.format, self._product, self._tally, self._request_id = format, product, tally, request_id
        self._names = names
        self.grid: Grid | None = None  # of the scene, for the GeoTIFF formats
        self._file = spool.share().open()
        self._writer: Writer | None = None
        self._seconds = 0.0

    @property
    def _hopeless(self) -> bool:
        if self._tally.failed == 0:
            return False
        if self.format.startswith("geotiff"):  # of one scene, which could not be opened
            return self.grid is None
        return self.format == "npy" and not self._product.head.as_nan

    async def add(self, outcomes: Sequence[Outcome]) -> None:
        """Takes the next outcomes.

        Raises:
            SpoolError: there is no room for them.
            HopelessError: the answer can only be a problem, whatever comes: npy has no room for errors, and
                a GeoTIFF only has a scene.
        """
        for outcome in outcomes:
            self._tally.add(outcome)
            metrics.TILES.labels(_outcome_label(outcome)).inc()
        if self._hopeless:
            raise HopelessError
        start = time.perf_counter()
        count = len(outcomes)
        numbers = count
        for size in self._product.head.shape:
            numbers *= size
        if self.format in _INLINE_FORMATS and numbers <= _INLINE_NUMBERS:
            self._write(outcomes)
        else:
            await in_thread(self._write, outcomes)
        self._seconds += time.perf_counter() - start

    async def response(self, report: Report) -> Response:
        """The complete answer; a problem if no tile succeeded."""
        tally = self._tally
        if self._hopeless or not (tally.embedded or (tally.windows and not tally.failed)):
            self.close()
            return all_failed(tally, self._request_id)
        report.warned, report.model = counts(tally.warned), named(self._product.head.fields["model"])
        start = time.perf_counter()
        if self.format in _INLINE_FORMATS:
            self._finish()
        else:
            await in_thread(self._finish)
        report.note("format", self._seconds + time.perf_counter() - start)
        if self._file.on_disk:
            headers = _headers(report, self.format) | {"Content-Length": str(self._file.size)}
            media_type = formats.KINDS[self.format].media_type
            return StreamingResponse(chunks(self._file), media_type=media_type, headers=headers)
        content = self._file.getvalue()
        self.close()
        return Whole(content, self.format, report)

    def close(self) -> None:
        """Frees what has been written."""
        if self._writer is not None:
            self._writer.abandon()
        self._file.close()

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        if self._writer is None:
            self._writer = _writer(self.format, self._file, self._product.head, self.grid)
        self._writer.add(self._items(outcomes))

    def _finish(self) -> None:
        assert self._writer is not None  # noqa: S101  # something was written
        self._writer.finish(self._tally.summary())

    def _items(self, outcomes: Sequence[Outcome]) -> list[Item]:
        good = [o.result.values for o in outcomes if isinstance(o.result, Embedded)]
        fields = iter(self._product.fields(good))
        return [
            _item(o, o.result, next(fields)) if isinstance(o.result, Embedded) else self._without_result(o)
            for o in outcomes
        ]

    def _without_result(self, outcome: Outcome) -> Item:
        window = {} if outcome.row is None else {"row": outcome.row, "col": outcome.col}
        if isinstance(outcome.result, Skipped):
            return {"index": outcome.index, **window, "skipped": outcome.result.reason}
        error = outcome.result
        item: Item = {"index": outcome.index}
        if outcome.index < len(self._names):
            given, source = self._names[outcome.index]
            place = "" if outcome.row is None else f"_r{outcome.row}_c{outcome.col}"
            item |= {"id": (given or str(outcome.index)) + place, "source": source}
        return item | window | {"error": problem(code_of(error), str(error), self._request_id)}  # type: ignore[arg-type]


def _writer(format: Format, file: SpoolFile, head: Head, grid: Grid | None) -> Writer:  # noqa: A002
    """Arrow is imported when it is wanted: it takes a tenth of a second to load."""
    match format:
        case "json" | "base64":
            return JsonWriter(file, head, as_base64=format == "base64")
        case "ndjson":
            return NdjsonWriter(file)
        case "geojson":
            return GeojsonWriter(file, head)
        case "npy":
            return NpyWriter(file, head)
        case "parquet":
            from service.formats.parquet import ParquetWriter

            return ParquetWriter(file, head)
        case _:
            assert grid is not None  # noqa: S101  # a window of it was computed
            return RasterWriter(file, head, grid, classes=format == "geotiff-classes")


def all_failed(tally: Tally, request_id: str) -> Response:
    """The first failure's problem, with all of them listed."""
    bodies = [(i, problem(code_of(error), str(error), request_id)) for i, error in tally.failures]
    first = dict(bodies[0][1])
    first["errors"] = [
        {"index": i, **{key: body[key] for key in ("type", "status", "detail")}} for i, body in bodies
    ]
    retry = {"Retry-After": "1"} if PROBLEMS[code_of(tally.failures[0][1])].status == 503 else None
    return problem_response(first, retry)


def _item(outcome: Outcome, result: Embedded, numbers: dict[str, Any]) -> Item:
    fields = result.tile.fields
    item = {"index": outcome.index, "id": fields["id"] or str(outcome.index), "source": fields["source"]}
    item |= numbers
    item |= {name: found for name, found in fields.items() if name not in ("id", "source", "warnings")}
    return item | {"cached": result.cached, "warnings": fields["warnings"]}


def _outcome_label(outcome: Outcome) -> str:
    if isinstance(outcome.result, Exception):
        return code_of(outcome.result)
    return f"skipped-{outcome.result.reason}" if isinstance(outcome.result, Skipped) else "ok"


class Whole(Response):
    """An answer in memory, its headers as they are sent: making them is a twentieth of a cached request.

    Args:
        content: the body.
        kind: its format.
        report: how the request went.
    """

    def __init__(self, content: bytes, kind: Format, report: Report) -> None:
        self.status_code = 200
        self.background = None
        self.body = content
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            (b"content-type", formats.KINDS[kind].media_type.encode()),
            *((name.lower().encode(), text.encode()) for name, text in _headers(report, kind).items()),
        ]


def _headers(report: Report, format: Format) -> dict[str, str]:  # noqa: A002
    timing = ", ".join(f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in report.stages.items())
    # Batch size 0: everything came from the cache.
    headers = {"Server-Timing": timing, "X-Cache": report.cache, "X-Batch-Size": str(report.batch_size)}
    headers[MODEL] = report.model  # npy and ndjson have no room for it
    if format not in ("json", "base64"):
        headers["Content-Disposition"] = f'attachment; filename="landmoe.{formats.KINDS[format].suffix}"'
    if report.warned:  # npy and the GeoTIFFs have no room for them
        headers[WARNINGS] = report.warned
    return headers


def named(reference: Mapping[str, str]) -> str:
    """What tells results of one model from those of another, in a header."""
    return f"digest={reference['digest']}, precision={reference['precision']}"


def counts(numbers: Mapping[str, int]) -> str:
    """As a dictionary of structured fields (RFC 9651), in a header."""
    return ", ".join(f"{name}={number}" for name, number in numbers.items())
