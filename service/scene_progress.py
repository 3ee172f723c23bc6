"""How far the scenes of each request are, for whoever waits for its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """Windows of all scenes of a request, and how many are done: computed, left out or failed."""

    windows: int
    done: int = 0


class ScenesUnderway:
    """The requests of this process that have scenes, by their ids. Belongs to the event loop."""

    def __init__(self) -> None:
        self._requests: dict[str, Progress] = {}

    def __getitem__(self, request_id: str) -> Progress:
        """Raises KeyError where no such request is under way."""
        return self._requests[request_id]

    @contextmanager
    def request(self, request_id: str, windows: int) -> Iterator[Progress]:
        """Shows a request as long as it lasts; of two with the same id, the later."""
        progress = self._requests[request_id] = Progress(windows)
        try:
            yield progress
        finally:
            if self._requests.get(request_id) is progress:
                del self._requests[request_id]
