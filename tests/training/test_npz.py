"""Sets of arrays (.npz) that are not as they should be: named, skipped, and no harm to others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.rasters import dn_pixels
from tests.training.packed import npz, packing, skipped, write


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"id": np.array(["a", "b"])}, "id of shape (2,); expected (3,)"),
        ({"lat": np.float64(47.0)}, "lat of shape (); expected (3,)"),
        ({"lat": np.zeros(3), "lon": np.full(3, 246.0)}, "lon is 246.0; expected degrees"),
        ({"lat": np.array(["north"] * 3), "lon": np.zeros(3)}, "could not convert string to float"),
    ],
)
def test_columns_that_cannot_be_used_are_named_and_stop_nothing(
    tmp_path: Path, columns: dict[str, np.ndarray], reason: str
) -> None:
    npz(tmp_path / "good.npz", 4)
    pixels = np.stack([dn_pixels(40, 40, seed=i) for i in range(3)])
    np.savez(tmp_path / "bad.npz", x=pixels, **columns)
    found = packing(
        tmp_path,
        *({"name": name, "kind": "npz", "path": f"{name}.npz"} for name in ("good", "bad")),
    )
    assert set(found.sources()) == {"good"}
    assert any(reason in text for text in skipped(found).values())


def test_columns_of_bytes_and_times_of_numpy_are_text_and_others_are_not_read(tmp_path: Path) -> None:
    pixels = np.stack([dn_pixels(40, 40, seed=i) for i in range(2)])
    np.savez(
        tmp_path / "a.npz",
        x=pixels,
        id=np.array([b"one", b"two"]),
        label=np.array([b"lake|forest", b""]),
        time=np.array(["2020-08-02T18:31:00", "NaT"], "datetime64[ns]"),
        sensor=np.array("L8"),
        notes=np.array([{"any": "object"}], object),
    )
    found = packing(tmp_path, {"name": "a", "kind": "npz", "path": "a.npz"})
    assert found.column("id").tolist() == ["one", "two"]
    assert found.column("labels").tolist() == ["lake|forest", ""]
    assert found.column("time").tolist() == ["2020-08-02T18:31:00Z", ""]


def test_a_damaged_archive_is_skipped(tmp_path: Path) -> None:
    npz(tmp_path / "good.npz", 4)
    np.savez_compressed(tmp_path / "whole.npz", x=np.stack([dn_pixels(40, 40, seed=i) for i in range(3)]))
    data = (tmp_path / "whole.npz").read_bytes()
    at = range(200, len(data) - 200, (len(data) - 400) // 40)
    for number, start in enumerate(at):  # wherever it is, zlib or the checksum finds it
        write(tmp_path / f"bad/{number}.npz", data[:start] + b"\xff" * 8 + data[start + 8 :])
    bad = [{"name": f"b{n}", "kind": "npz", "path": f"bad/{n}.npz"} for n in range(len(at))]
    found = packing(tmp_path, {"name": "good", "kind": "npz", "path": "good.npz"}, *bad)
    assert set(found.sources()) == {"good"}
    assert len(skipped(found)) >= len(at)
