"""`landmoe`: serve tiles, look at bundles, make a tile to try with."""

from __future__ import annotations

import typer

app = typer.Typer(name="landmoe", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def main() -> None:
    """Console entry point."""
    app()
