"""MTL files: what they tell in three formats, and what they cannot do to the service."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from model.tile_errors import TileError
from service.rasters import mtl

ODL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = PRODUCT_CONTENTS
    LANDSAT_PRODUCT_ID = "LC09_L2SP_042024_20240601_20240602_02_T1"
  END_GROUP = PRODUCT_CONTENTS
  GROUP = IMAGE_ATTRIBUTES
    SPACECRAFT_ID = "LANDSAT_9"
    SENSOR_ID = "OLI_TIRS"
    DATE_ACQUIRED = 2024-06-01
    SCENE_CENTER_TIME = "18:22:33.1234560Z"
  END_GROUP = IMAGE_ATTRIBUTES
  GROUP = LATER
    SPACECRAFT_ID = "LANDSAT_5"
  END_GROUP = LATER
END_GROUP = LANDSAT_METADATA_FILE
END
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n", " \t\n"])
def test_text_as_usgs_writes_it(line_end: str) -> None:
    found = mtl.parse(b"\xef\xbb\xbf" + ODL.replace("\n", line_end).encode())
    assert (found.spacecraft, found.sensor) == ("LANDSAT_9", "OLI_TIRS")
    assert found.product == "LC09_L2SP_042024_20240601_20240602_02_T1"
    assert found.acquired is not None
    assert found.acquired.when.isoformat().startswith("2024-06-01T18:22:33")


def test_level_2_repeats_some_names_for_the_level_1_that_it_was_made_of() -> None:
    two, one = ("L2SP", "LC09_L2SP_042024_20240601_20240602_02_T1"), ("L1TP", "LC09_L1TP_042024_20240601")
    fields = "PROCESSING_LEVEL", "LANDSAT_PRODUCT_ID"
    groups = [dict(zip(fields, values, strict=True)) for values in (two, one)]
    odl = "\n".join(f'{name} = "{value}"' for group in groups for name, value in group.items())
    xml = "".join(
        f"<G{n}>" + "".join(f"<{name}>{value}</{name}>" for name, value in group.items()) + f"</G{n}>"
        for n, group in enumerate(groups)
    )
    for text in (odl, f"<A>{xml}</A>", json.dumps({f"G{n}": group for n, group in enumerate(groups)})):
        found = mtl.parse(text.encode())
        assert (found.level, found.product) == two


def seconds(data: bytes) -> float:
    start = time.process_time()
    with contextlib.suppress(TileError):
        mtl.parse(data)
    return time.process_time() - start


@pytest.mark.parametrize(
    "piece", ["\n", " ", "\t\n", "A", "A =", "=", '"', ' = "', "SENSOR_ID = \n", "<", "\u2028", "{", "[1,"]
)
@pytest.mark.parametrize("begin", ["X", "SENSOR_ID = ", "{", "<a>"])
def test_time_grows_with_the_size_and_no_faster(begin: str, piece: str) -> None:
    """One whose time grew with the square held the whole process, for hours with the largest allowed."""

    def text(size: int) -> bytes:
        return (begin + piece * (size // len(piece.encode()))).encode() + b"X"

    small, large = mtl.MAX_BYTES // 64, mtl.MAX_BYTES - 20
    assert seconds(text(large)) < 64 * 8 * max(seconds(text(small)), 0.001)
