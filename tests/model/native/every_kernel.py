"""Runs a small encoder with every kernel that this CPU can run, from the library that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from model.native import session as native
from tests.model.native.test_session import CONFIGS, made, opened, tiles


def main(library: Path) -> None:
    native.LIBRARY = library
    able = (*native.able("fp32"), *native.able("bf16"))
    for name in ("small", "one head a group"):
        config = CONFIGS[name]
        content = made(config)
        for kernels in able:
            for chunk, threads, count in ((4, 1, 5), (1, 2, 2), (3, 3, 4)):
                running = opened(content, config, kernels, chunk=chunk, threads=threads)
                running.run(*tiles(config, count), native.OUTPUTS)
    print("kernels ran:", *able)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
