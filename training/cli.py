"""`landmoe-train`: every training command, each a thin call into the file that does the work."""

from __future__ import annotations

import typer

app = typer.Typer(name="landmoe-train", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def main() -> None:
    """Console entry point."""
    app()
