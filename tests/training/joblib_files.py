"""Joblib files written byte by byte."""

from __future__ import annotations

from pathlib import Path

PROTO = b"\x80\x04"  # how a pickle of protocol 4 begins


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "p.joblib"
    path.write_bytes(data)
    return path
