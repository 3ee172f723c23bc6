"""The windows of a scene, row by row: what is said of them, and their pixels as prepared tiles."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.bundle import Bundle
from model.tile_errors import TileWarning
from model.windows import TILE_SIZE, GridWindow
from service.allocator import give_back_free_pages
from service.describe import Description, PreparedTile, Said
from service.files import Source
from service.http.spool import Spool
from service.outcomes import Skipped
from service.parameters import RequestOptions, TileParameters
from service.prepare import clouds
from service.rasters.geotiff import Limits
from service.rasters.open_raster import OpenRaster
from service.rasters.scene_units import WHOLE_PIXELS, scene_units
from service.rasters.strip import Strip, steps
from service.when_and_where import Place, where

Window = tuple[GridWindow, PreparedTile | Skipped]


class SceneGrid:
    """One scene's windows in row-major order. One thread at a time may use it.

    What the values are is decided once for the whole scene; all windows are converted alike.

    Args:
        index: of the scene in the request.
        source: a file or a delivery.
        parameters: what the request says of it.
        options: with the stride and how many clouds are allowed.
        bundle: whose rules of preparation hold.
        limits: of the raster; those of decoded bytes hold for a strip.
        spool: where blocks wait that are too large for memory.

    Raises:
        GeotiffError, TileError, MetadataError: as `service.prepare.prepare`.
    """

    def __init__(
        self,
        index: int,
        source: Source,
        parameters: TileParameters,
        options: RequestOptions,
        bundle: Bundle,
        limits: Limits,
        spool: Spool,
    ) -> None:
        self.index = index
        self._spool = spool
        self._said = Said(source, parameters, bundle)
        self._options = options
        self.stride = options.stride or TILE_SIZE
        self._lock = threading.Lock()
        self._raster = OpenRaster(source, limits, whole=False, nodata=parameters.nodata)
        try:
            header = self._raster.header
            tiles.windows(header.height, header.width, self.stride)  # refuses what has none
            self._bands = tiles.select_bands(
                header.count,
                header.descriptions,
                parameters.bands,
                alpha=header.alpha,
                source=source.source,
            )
            self._steps = steps(self._raster, limits)
        except BaseException:
            self._raster.close()
            raise
        self.rows = (header.height - TILE_SIZE) // self.stride + 1
        self.cols = (header.width - TILE_SIZE) // self.stride + 1
        self.place = header.place
        self._windows: Generator[Window] | None = None
        self._closing = False
        self._failure: Exception | None = None  # for the next call

    def __len__(self) -> int:
        return self.rows * self.cols

    def take(self, count: int) -> list[Window]:
        """The next windows, at most so many; none at the end.

        Raises:
            GeotiffError: the file is damaged here; all windows before were given.
            TileError: the units cannot be told, or the scene has no valid pixel.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._windows is None:
                self._windows = self._all()
            taken: list[Window] = []
            try:
                taken.extend(islice(self._windows, count))  # keeps what came before an error
            except Exception as error:
                if not taken:
                    raise
                self._failure = error
            return taken

    def close(self) -> None:
        """Lets the file go; a thread that reads stops soon."""
        self._closing = True
        with self._lock:
            if self._windows is not None:
                self._windows.close()
            self._windows = _none()
            self._raster.close()

    def _all(self) -> Generator[Window]:
        raster, header = self._raster, self._raster.header
        units, unit_warnings = scene_units(
            raster, self._bands, self._said.parameters, self._steps.rows, lambda: self._closing
        )
        if header.height * header.width > WHOLE_PIXELS:
            give_back_free_pages()  # of some dozen megabytes of samples
        description = self._said.of(header, raster.acquired, units.name)
        description.warnings += [
            *unit_warnings,
            *tiles.contradiction_warning(self._bands, header.count, header.descriptions),
            *tiles.pixel_size_warning(header.gsd_m),
        ]
        fixed = self._fixed_place(description)
        with closing(Strip(raster, self._bands, units, self._steps, self._spool)) as strip:
            for grid in tiles.windows(header.height, header.width, self.stride):
                if self._closing:
                    return
                dn, valid, flags = strip.of(grid.window)
                tile = tiles.Tile(dn, valid, float(valid.mean()), grid.window)
                yield grid, self._prepared(grid, tile, flags, description, fixed)

    def _prepared(
        self,
        grid: GridWindow,
        tile: tiles.Tile,
        flags: NDArray[np.uint16] | None,
        description: Description,
        fixed: Place | None,
    ) -> PreparedTile | Skipped:
        if not tile.valid.any():
            return Skipped("empty")
        cloudy = clouds(flags, allowed := self._options.max_cloud_fraction)
        if allowed is not None and cloudy is not None and cloudy > allowed:
            return Skipped("cloudy")
        place = fixed
        if place is None:
            center = description.header.place.center(grid.window) if description.header.place else None
            place = Place(None, None, "missing") if center is None else Place(*center, "file")
        given = self._said.parameters.id or str(self.index)
        identity = {
            "id": f"{given}_r{grid.row}_c{grid.col}",
            "row": grid.row,
            "col": grid.col,
            "window": list(grid.window),
        }
        return description.tile(tile, place, flags, identity).hashed()

    def _fixed_place(self, description: Description) -> Place | None:
        """The place of every window; None where each has its own."""
        header, parameters = description.header, self._said.parameters
        if header.center is None or parameters.location_source in ("request", "none"):
            place = where(parameters, header, description.warnings)
            if header.center is None:
                description.warnings.append(
                    TileWarning(
                        "missing-georeferencing",
                        "the scene does not say where it is; its windows have no footprint and "
                        + ("all have the given lat and lon" if place.lat is not None else "no place"),
                    )
                )
            return place
        if parameters.lat is not None:
            description.warnings.append(
                TileWarning(
                    "unused-parameter",
                    "lat and lon are not used: every window of a georeferenced scene has its own place; "
                    "location_source=request uses them",
                )
            )
        return None


def _none() -> Generator[Window]:
    yield from ()
