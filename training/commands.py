"""What commands share: sizes by name, threads, and one line and exit status 1 for an expected failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import typer


class Size(StrEnum):
    """The published sizes of the network."""

    S = "S"
    XS = "XS"
    XXS = "XXS"


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors that a person can act on into a message; anything else is a defect and keeps its trace."""
    from model.bundle import BundleError
    from model.checkpoint import CheckpointError
    from training.heldout import EvaluationError
    from training.pretrain import NonFiniteLossError
    from training.settings import SettingsError
    from training.shards import PackError
    from training.state import StateError

    try:
        yield
    except (
        SettingsError,
        PackError,
        StateError,
        NonFiniteLossError,
        BundleError,
        CheckpointError,
        EvaluationError,
        OSError,  # an output that cannot be written
    ) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def limit_threads(count: int | None) -> None:
    """Let the network use so many CPU threads (None = all cores), and linear algebra outside it one.

    Probes are many small problems: with several threads each, they take seven times as long.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
    if count is not None:
        torch.set_num_threads(count)
