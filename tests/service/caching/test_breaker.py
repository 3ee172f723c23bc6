"""The circuit breaker, on a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.caching.breaker import Breaker


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _breaker(clock: _Clock, failures: int = 3) -> Breaker:
    return Breaker(failures=failures, first_wait_s=1, longest_wait_s=5, clock=clock, spread=lambda: 1.0)


def test_opens_after_failures_in_a_row_only() -> None:
    breaker = _breaker(_Clock())
    for succeeded in (False, False, True, False, False):
        breaker.record(succeeded)
        assert not breaker.is_open
        assert breaker.begin()
    breaker.record(False)
    assert breaker.is_open
    assert not breaker.begin()


def test_one_trial_at_a_time_at_growing_distances_then_closed_again() -> None:
    clock = _Clock()
    breaker = _breaker(clock, failures=1)
    breaker.record(False)
    waits = []
    for _ in range(5):
        assert not breaker.begin()
        waits.append(breaker.wait_s)
        clock.now += breaker.wait_s
        assert breaker.begin()
        assert not breaker.begin()  # the trial is under way
        breaker.record(False)
    assert waits == [1, 2, 4, 5, 5]
    clock.now += 5
    assert breaker.begin()
    breaker.record(True)
    assert not breaker.is_open
    assert breaker.wait_s == 0
    breaker.record(False)
    assert breaker.wait_s == 1  # the next outage begins with the first wait


def test_calls_begun_before_it_opened_change_nothing() -> None:
    clock = _Clock()
    breaker = _breaker(clock, failures=1)
    breaker.record(False)
    breaker.record(True)
    breaker.record(False)
    assert breaker.is_open
    assert breaker.wait_s == 1


def test_a_trial_whose_outcome_is_never_told_is_followed_by_another() -> None:
    clock = _Clock()
    breaker = _breaker(clock, failures=1)
    breaker.record(False)
    clock.now += 1
    assert breaker.begin()
    clock.now += 1
    assert breaker.begin()


@given(st.lists(st.one_of(st.booleans(), st.floats(0.01, 20)), max_size=80))
def test_whatever_happens_a_trial_comes_within_the_longest_wait(events: list[bool | float]) -> None:
    clock = _Clock()
    breaker = Breaker(failures=2, first_wait_s=1, longest_wait_s=5, clock=clock)
    for event in events:
        if isinstance(event, bool):
            breaker.record(event)
        else:
            clock.now += event
            breaker.begin()
        assert 0 <= breaker.wait_s <= 5 * 1.25
