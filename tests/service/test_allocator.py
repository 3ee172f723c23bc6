"""What large arrays leave behind in a process when they are freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
