"""Whether those who were refused find room when they come back as they were told."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.batching import returns
from service.batching.admission import Gate
from service.errors import OverloadedError


class World:
    """A clock that goes on when told, and a gate before a queue that is emptied at a steady rate."""

    def __init__(self, capacity: int, measured: float, actual: float, patch: pytest.MonkeyPatch) -> None:
        self.now = self._since = 1000.0
        self.waiting = 0.0
        self._rate = actual
        self.gate = Gate(capacity, 1e6, lambda: int(self.waiting))
        patch.setattr(returns.time, "monotonic", lambda: self.now)  # the gate's clock, too
        self.gate.measure(round(measured * 1000), 1000.0)

    def come(self, at: float, tiles: int) -> int | None:
        """A request: None if it is let in, else the seconds after which it should return."""
        self.now = max(at, self.now)
        self.waiting = max(0.0, self.waiting - self._rate * (self.now - self._since))
        self._since = self.now
        try:
            self.gate.check(tiles)
        except OverloadedError as refused:
            return int(refused.headers["Retry-After"])
        self.waiting += tiles
        return None


def let_in_when_told(world: World, clients: int, tiles: int, late_s: float) -> float:
    """The share of clients, come all at once, who are let in at once or at their first return."""
    coming = [(world.now + n * 1e-3, 0, n) for n in range(clients)]
    returned: list[int] = []
    while coming:
        at, attempt, n = heapq.heappop(coming)
        wait_s = world.come(at, tiles)
        if wait_s is None:
            returned.append(attempt)
        elif attempt < 50:
            heapq.heappush(coming, (world.now + wait_s + late_s * (n % 5) / 4, attempt + 1, n))
    assert len(returned) == clients
    return sum(attempt <= 1 for attempt in returned) / clients


@given(
    tiles=st.integers(1, 32),
    full=st.integers(2, 20),
    clients=st.integers(2, 60),
    rate=st.floats(20, 2000),
    slower=st.floats(0.85, 2),
)
def test_all_who_return_as_told_find_room(
    tiles: int, full: int, clients: int, rate: float, slower: float
) -> None:
    """As long as the line is not longer than promises go, and the machine is about as fast as it was."""
    assume(clients <= 4 * full and clients * tiles / rate <= 40)
    with pytest.MonkeyPatch.context() as patch:
        world = World(full * tiles, rate, rate * slower, patch)
        assert let_in_when_told(world, clients, tiles, 0.0) == 1


def test_most_find_room_on_a_machine_that_became_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(64, 86, 50, monkeypatch)
    assert let_in_when_told(world, 32, 8, 0.05) >= 0.75


def test_whole_seconds_do_not_send_more_back_together_than_find_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(64, 1000, 1000, monkeypatch)
    world.waiting = 64
    told = [world.come(world.now, 8) for _ in range(24)]
    assert [told.count(second) for second in (1, 2, 3)] == [8, 8, 8]


def test_the_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(20, 10, 10, monkeypatch)
    world.waiting = 20
    told = [world.come(world.now, 10) for _ in range(50)]
    assert told == sorted(told, key=lambda seconds: seconds or 0)
    assert told[0] == 2
    assert told[-1] == told[7] == 10  # four full queues, at the rate that is sure


def test_who_did_not_return_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(20, 10, 10, monkeypatch)
    world.waiting = 20
    first = [world.come(world.now, 10) for _ in range(5)]
    world.now += 60
    world.waiting, world._since = 20, world.now
    assert [world.come(world.now, 10) for _ in range(5)] == first
