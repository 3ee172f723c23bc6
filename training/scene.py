"""The scene that land-cover fractions are predicted in, read with the raster that says what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model import metadata
from model.metadata import MetadataError
from training import heldout, landcover
from training.frozen import Frozen
from training.heldout import EvaluationError, Tiles
from training.landcover import Cover, Windows


@dataclass(frozen=True)
class LandCover:
    """A classified raster, a scene in the same system, and when the scene was taken."""

    scene: Path
    raster: Path
    names: dict[int, str]
    when: str = ""  # RFC 3339 or a date; '' unknown


@dataclass(frozen=True)
class Scene:
    """A `LandCover` that was read: the windows of the scene that the raster covers."""

    name: str
    cover: Cover
    windows: Windows
    tiles: Tiles  # the same


def read_scene(what: LandCover, found: Frozen, stride: int) -> Scene:
    """Cut the windows of a scene every `stride` px.

    Raises:
        EvaluationError: the raster, the scene or its time cannot be used.
    """
    cover = landcover.read_cover(what.raster, what.names)
    cut = landcover.cut(what.scene, cover, stride)
    return Scene(what.scene.stem, cover, cut, _as_tiles(cut, what.when, found))


def _as_tiles(windows: Windows, when: str, found: Frozen) -> Tiles:
    try:
        acquired = metadata.parse_datetime(when) if when else None
    except MetadataError as error:
        raise EvaluationError(f"--scene-time: {error}") from error
    convention = found.preprocessing.hour_convention
    positions = zip(windows.lat, windows.lon, strict=True)
    encoded = [
        metadata.encode(acquired, float(a), float(b), hour_convention=convention) for a, b in positions
    ]
    return heldout.of_scene(windows.dn, encoded, found.preprocessing)
