"""Which requests are let in: a bounded number of tiles at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType

from service.batching.returns import Returns
from service.errors import OverloadedError
from service.telemetry import metrics

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

    def __init__(self, gate: Gate, tiles: int, *, ahead: bool) -> None:
        self._gate = gate
        self._tiles = tiles
        self._ahead = ahead
        self._token: Token[Admission | None] | None = None

    def use(self, tiles: int) -> None:
        """Tiles go to the queue now and count there; who puts them there tells the gate."""
        used = min(tiles, self._tiles)
        self._tiles -= used
        self._gate.give_back(used, ahead=self._ahead)

    def release(self) -> None:
        """Gives back all room; what the request still submits is taken nevertheless."""
        if self._tiles:
            self.use(self._tiles)
            self._gate.tell()

    def __enter__(self) -> Admission:
        self._token = current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.reset(self._token)
        self.release()


class Gate:
    """Counts the tiles inside: those being prepared, those that room is kept for, and those in the queue.

    Args:
        queue_size: tiles inside at most, however fast the engine is.
        timeout_s: what requests have to be answered; bounds the tiles inside where the engine is slow.
        waiting: tells the tiles in the queue.
        computing: tells the tiles that the engine has.
        preparers: tiles that are prepared at the same time; more than these wait for it.
    """

    def __init__(
        self,
        queue_size: int,
        timeout_s: float,
        waiting: Callable[[], int],
        computing: Callable[[], int] = lambda: 0,
        preparers: int = 1,
    ) -> None:
        self._queue_size = queue_size
        self._timeout_s = timeout_s
        self._waiting = waiting
        self._computing = computing
        self._preparers = preparers
        self.preparing = 0
        self._kept = 0  # for windows of scenes that are being opened
        self._tiles = 0.0  # computed, and in how many seconds: both fade
        self._seconds = 0.0
        self._last_done = 0.0
        self._busy = False
        self._returns = Returns()
        self._told_inside = self._told_capacity = -1  # nothing yet

    @property
    def inside(self) -> int:
        """Tiles being prepared or waiting."""
        return self.preparing + self._kept + self._waiting()

    @property
    def tiles_per_s(self) -> float:
        """The measured throughput while there was something to be done."""
        return self._tiles / self._seconds if self._seconds else _FIRST_GUESS_TILES_PER_S

    @property
    def capacity(self) -> int:
        """Tiles that may be inside now."""
        return min(self._queue_size, max(1, int(self.tiles_per_s * self._timeout_s * _LONGEST_WAIT)))

    def admit(self, tiles: int, *, ahead: bool = False) -> Admission:
        """Lets a request in.

        Args:
            tiles: that it has.
            ahead: whether room is all that they need for now, since nobody prepares them yet.

        Raises:
            OverloadedError: there is no room for all its tiles.
        """
        self.check(tiles)
        self.give_back(-tiles, ahead=ahead)
        self.tell()
        return Admission(self, tiles, ahead=ahead)

    def give_back(self, tiles: int, *, ahead: bool) -> None:
        """Frees the room of so many tiles that were admitted."""
        if ahead:
            self._kept -= tiles
        else:
            self.preparing -= tiles

    def tell(self) -> None:
        """Brings the metrics up to date, which a request asks for several times."""
        inside, capacity = self.inside, self.capacity
        if inside != self._told_inside:
            self._told_inside = inside
            metrics.QUEUE_DEPTH.set(inside)
        if capacity != self._told_capacity:
            self._told_capacity = capacity
            metrics.QUEUE_CAPACITY.set(capacity)

    def check(self, tiles: int) -> None:
        """Raises OverloadedError unless there is room for so many tiles now."""
        inside, capacity = self.inside, self.capacity
        # An idle service takes a request of any allowed size: there is nothing to wait for.
        if inside and inside + tiles > capacity:
            raise OverloadedError(
                f"{tiles} tiles came, {inside} are being prepared or waiting; "
                f"expected at most {capacity} in all",
                self._returns.promise(tiles, inside, capacity, self.tiles_per_s),
            )

    def measure(self, tiles: int, elapsed_s: float) -> None:
        """Takes notice of a batch that is done, and of how long it took."""
        now = time.monotonic()
        # While tiles wait, for the engine or to be prepared, the time between batches counts, whatever it was
        # spent on. A lone tile that takes long to prepare keeps nobody waiting, nor does a scene that opens.
        self._tiles = self._tiles * _MEMORY + tiles
        self._seconds = self._seconds * _MEMORY + (now - self._last_done if self._busy else elapsed_s)
        self._last_done = now
        self._busy = self._waiting() + self._computing() > 0 or self.preparing > self._preparers
