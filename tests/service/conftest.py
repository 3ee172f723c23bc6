"""The bundle of the package, and a client of the application with an engine that needs no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from starlette.testclient import TestClient

from model import bundle as bundles
from model.bundle import Bundle
from service.app import create_app
from service.settings import Settings
from tests.service.fake_engine import FakeEngine

MakeClient = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def plain_logging() -> None:
    """One JSON line for each event; structlog's default draws tracebacks, which takes seconds.

    Of every test anew: commands that run in this process keep what is below a warning to themselves.
    """
    structlog.reset_defaults()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )


@pytest.fixture(scope="session")
def loaded() -> Bundle:
    """The bundle of the package."""
    return bundles.load()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def make_client(engine: FakeEngine) -> Iterator[MakeClient]:
    """Makes a started client; settings are keyword arguments, `engine` another engine."""
    with ExitStack() as stack:

        def make(*, engine: FakeEngine = engine, **settings: Any) -> TestClient:
            app = create_app(Settings(**settings), engine)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
