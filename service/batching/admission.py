"""Which requests are let in: a bounded number of tiles at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType

from service.batching.returns import Returns
from service.errors import OverloadedError

# How much of what was measured before still counts after a batch: a change of load shows within ten batches.
_MEMORY = 0.9
_FIRST_GUESS_TILES_PER_S = 100  # until a batch was measured: what two ordinary cores give
# A request that must wait for longer than this share of the time it has would likely not be answered in it;
# what the engine does for it is then lost.
_LONGEST_WAIT = 0.5


# The admission of the request that is being worked on: what its work submits, by whatever way, was let in.
current: ContextVar[Admission | None] = ContextVar("admission", default=None)


class Admission:
    """Room for the tiles of one request, kept until they are in the queue or the `with` block is left."""

    def __init__(self, gate: Gate, tiles: int) -> None:
        self._gate = gate
        self._tiles = tiles
        self._token: Token[Admission | None] | None = None

    def use(self, tiles: int) -> None:
        """Tiles are in the queue now and count there."""
        used = min(tiles, self._tiles)
        self._tiles -= used
        self._gate.reserved -= used

    def __enter__(self) -> Admission:
        self._token = current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.reset(self._token)
        self.use(self._tiles)


class Gate:
    """Counts the tiles inside: those being prepared (`reserved`) and those in the queue.

    Args:
        queue_size: tiles inside at most, however fast the engine is.
        timeout_s: what requests have to be answered; bounds the tiles inside where the engine is slow.
        waiting: tells the tiles in the queue.
    """

    def __init__(self, queue_size: int, timeout_s: float, waiting: Callable[[], int]) -> None:
        self._queue_size = queue_size
        self._timeout_s = timeout_s
        self._waiting = waiting
        self.reserved = 0
        self._tiles = 0.0  # computed, and in how many seconds: both fade
        self._seconds = 0.0
        self._last_done = 0.0
        self._busy = False
        self._returns = Returns()

    @property
    def inside(self) -> int:
        """Tiles being prepared or waiting."""
        return self.reserved + self._waiting()

    @property
    def tiles_per_s(self) -> float:
        """The measured throughput while there was something to be done."""
        return self._tiles / self._seconds if self._seconds else _FIRST_GUESS_TILES_PER_S

    @property
    def capacity(self) -> int:
        """Tiles that may be inside now."""
        return min(self._queue_size, max(1, int(self.tiles_per_s * self._timeout_s * _LONGEST_WAIT)))

    def admit(self, tiles: int) -> Admission:
        """Lets a request in.

        Raises:
            OverloadedError: there is no room for all its tiles.
        """
        self.check(tiles)
        self.reserved += tiles
        return Admission(self, tiles)

    def check(self, tiles: int) -> None:
        """Raises OverloadedError unless there is room for so many tiles now."""
        inside, capacity = self.inside, self.capacity
        # An idle service takes a request of any allowed size: there is nothing to wait for.
        if inside and inside + tiles > capacity:
            raise OverloadedError(
                f"{tiles} tiles came, {inside} are waiting and at most {capacity} may wait",
                self._returns.promise(tiles, inside, capacity, self.tiles_per_s),
            )

    def measure(self, tiles: int, elapsed_s: float) -> None:
        """Takes notice of a batch that is done, and of how long it took."""
        now = time.monotonic()
        # While there is something to be done, the time between batches counts, whatever it was spent on.
        self._tiles = self._tiles * _MEMORY + tiles
        self._seconds = self._seconds * _MEMORY + (now - self._last_done if self._busy else elapsed_s)
        self._last_done, self._busy = now, self.inside > 0
