"""The commands' help says all that is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text

from service.cli import app as serving
from training.cli import app as training


def written(command: Any) -> Iterator[str]:
    """Help texts of a command, its parameters, and the commands below it."""
    yield command.help or ""
    yield from (parameter.help or "" for parameter in command.params if hasattr(parameter, "help"))
    for below in getattr(command, "commands", {}).values():
        yield from written(below)


@pytest.mark.parametrize("app", [serving, training])
def test_no_word_is_taken_for_markup(app: typer.Typer) -> None:
    texts = list(written(typer.main.get_command(app)))
    assert len(texts) > 20
    assert [text for text in texts if Text.from_markup(text).plain != text] == []
