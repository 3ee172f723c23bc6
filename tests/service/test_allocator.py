"""What large arrays leave behind in a process when they are freed."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")

# Three threads in turn hold six arrays of 8 MB, after larger ones were there; what stays resident, in MB.
SCRIPT = """
import sys, threading
import numpy as np
import psutil
from service.allocator import give_back_freed_memory

def resident():
    return psutil.Process().memory_info().rss / 1e6

def work():
    for size in (4, 8, 16, 30):
        np.ones(size << 20, np.uint8)
    held = [np.ones(8 << 20, np.uint8) for _ in range(6)]
    del held
    done.wait()  # a thread that ends would give its memory to the next one

done = threading.Barrier(4)
if sys.argv[1] == "give back":
    print("set", give_back_freed_memory(), end=" ")
before = resident()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
    while thread.is_alive() and done.n_waiting <= threads.index(thread):
        pass
print(resident() - before)
done.wait()
"""


def held_mb(argument: str, **environment: str) -> tuple[str, float]:
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    words = output.split()
    return " ".join(words[:-1]), float(words[-1])


def test_freed_arrays_are_given_back() -> None:
    said, held = held_mb("give back")
    assert said == "set True"
    assert held < 3 * 8 + 2
    # Else there would be nothing to do.
    assert held_mb("leave it")[1] > 60


def test_the_operator_s_choice_stays() -> None:
    said, _ = held_mb("give back", MALLOC_TRIM_THRESHOLD_="100000000")
    assert said == "set False"


# A file in strips of a kilobyte is read part by part, and something small of each part lasts: pages that stay
# resident after the file is closed, in MB. GDAL keeps the strips until then, up to what GDAL_CACHEMAX says.
READING = """
import sys, threading
import psutil
from pathlib import Path
from service.allocator import give_back_freed_memory
from service.rasters import geotiff

def resident():
    return psutil.Process().memory_info().rss / 1e6

def work():
    with geotiff.Reader(Path(sys.argv[1])) as reader:
        header = reader.header
        reader.read((0, 0, 64, header.width))
        before.append(resident())
        for row in range(0, header.height - 64, 64):
            reader.read((row, 0, 64, header.width))
            kept.append(bytes(600))
    after.append(resident())

if sys.argv[2] == "keep":
    geotiff.give_back_free_pages = lambda: None
give_back_freed_memory()
before, after, kept = [], [], []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(after[0] - before[0])
"""


def test_what_gdal_kept_of_a_file_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "high.tif"
    creation = {"driver": "GTiff", "count": 7, "height": 40_000, "width": 41, "dtype": "uint16"}
    with rasterio.open(
        path, "w", **creation, blockysize=14, interleave="pixel", compress="deflate", crs="EPSG:32633",
        transform=rasterio.Affine(30.0, 0.0, 386_355.0, 0.0, -30.0, 5_293_245.0),
    ) as file:  # fmt: skip
        file.write(np.ones((7, 40_000, 41), np.uint16))

    def kept_mb(trimming: str) -> float:
        output = subprocess.run(
            [sys.executable, "-c", READING, str(path), trimming],
            env={"PATH": "", "GDAL_CACHEMAX": "64"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return float(output.stdout)

    assert kept_mb("give back") < 8
    # Else there would be nothing to do: 23 MB of pixels.
    assert kept_mb("keep") > 18
