"""What editors complete is what the service takes and the client has."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from service import parameters
from service.client import AsyncClient
from service.clients import options


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (options.EmbedOptions, parameters.EmbedOptions),
        (options.ClassifyOptions, parameters.ClassifyOptions),
    ],
)
def test_every_parameter_but_the_format(given: type, taken: type[BaseModel]) -> None:
    """The client chooses the format, of which it makes results."""
    assert set(get_type_hints(given)) == parameters.PER_TILE | taken.model_fields.keys() - {"format"}


def test_the_clients_settings() -> None:
    arguments = inspect.signature(AsyncClient).parameters.keys() - {"url"}
    assert set(get_type_hints(options.Settings)) == arguments
