"""One endpoint's lane: how much at once, whether at all, and what is next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier import breaker, lane
from services.notifier.breaker import Breaker
from services.notifier.lane import Lane
from services.notifier.window import INITIAL, LARGEST, RESERVED, Window
from shared.messages import Item

PLACES = 256


def item(number: int) -> Item:
    return Item("acct", f"dlv_{number:04}")


def fill(window: Window, free: int) -> int:
    """How many attempts begin at once, from `free` places."""
    in_flight = 0
    while free and window.allows(in_flight, free):
        in_flight += 1
        free -= 1
    return in_flight


def test_alone_an_endpoint_gets_a_quarter_of_the_places_at_most() -> None:
    assert fill(Window(size=LARGEST), PLACES) == PLACES // 4


@given(st.integers(1, 500), st.sampled_from([INITIAL, LARGEST]))
def test_however_many_endpoints_are_slow_a_quick_one_finds_places(slow: int, size: float) -> None:
    reserved = int(RESERVED * PLACES)
    free = PLACES
    for _ in range(slow):
        free -= fill(Window(size), free - reserved)
    assert free >= reserved
    assert fill(Window(), free) >= 8


def test_a_window_grows_by_one_a_round_where_it_is_used_and_halves_once_for_a_round() -> None:
    window = Window(size=8)
    for _ in range(8):
        window.succeeded(in_flight=8)
    assert 8.9 < window.size <= 9
    for _ in range(100):
        window.succeeded(in_flight=1)
    assert window.size <= 9, "little sent proves little"
    for _ in range(8):  # all begun together at 10, all failed by 20
        window.failed(started_at=10, now=20)
    assert 4.4 < window.size <= 4.5
    window.failed(started_at=21, now=22)
    assert window.size < 2.3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.floats(0, 1e6))))
def test_a_window_stays_between_one_and_the_largest(history: list[tuple[bool, int, float]]) -> None:
    window = Window()
    for success, in_flight, at in history:
        if success:
            window.succeeded(in_flight)
        else:
            window.failed(at, at)
        assert 1 <= window.size <= LARGEST


def opened(now: float = 0.0) -> Breaker:
    broken = Breaker()
    for _ in range(breaker.FAILURES):
        broken.failed(started_at=now, now=now, rand=0)
    return broken


def test_a_breaker_opens_after_failures_with_no_success_between() -> None:
    broken = Breaker()
    for _ in range(breaker.FAILURES - 1):
        broken.failed(0, 0, 0)
    broken.succeeded()
    for _ in range(breaker.FAILURES - 1):
        broken.failed(0, 0, 0)
    assert broken.closed
    broken.failed(0, 0, 0)
    assert not broken.closed


def test_it_lets_one_probe_through_and_doubles_its_pause_when_that_fails() -> None:
    broken, now, pauses = opened(), 0.0, []
    for _ in range(10):
        assert broken.probe_at is not None
        pauses.append(broken.probe_at - now)
        assert not broken.allows(0, broken.probe_at - 0.001)
        now = broken.probe_at
        assert broken.allows(0, now)
        assert not broken.allows(1, now), "one alone"
        broken.failed(started_at=now, now=now, rand=0)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]
    broken.succeeded()
    assert broken.closed
    assert (broken.failures, broken.opened) == (0, 0)


def test_what_was_under_way_when_it_opened_does_not_open_it_further() -> None:
    broken = opened(now=100.0)
    before = broken.probe_at
    broken.failed(started_at=99.0, now=103.0, rand=0)
    assert (broken.probe_at, broken.opened) == (before, 1)


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_adds_at_most_a_fifth(rand: float) -> None:
    broken = Breaker(failures=breaker.FAILURES - 1)
    broken.failed(0, 0, rand)
    assert broken.probe_at is not None
    assert 5 <= broken.probe_at <= 6


def test_four_first_attempts_go_for_one_of_the_backlog() -> None:
    one = Lane(item(0))
    for number in range(1, 13):
        assert one.offer(item(number))
    one.pulled([item(number) for number in range(101, 104)], asked=10)
    order = []
    while (taken := one.take(0, PLACES)) is not None:
        order.append(int(taken.id[4:]))
        one.finished(taken)
    assert order == [1, 2, 3, 4, 101, 5, 6, 7, 8, 102, 9, 10, 11, 12, 103]


def test_nothing_is_in_a_lane_twice() -> None:
    one = Lane(item(0))
    assert one.offer(item(1))
    assert one.offer(item(1))
    one.pulled([item(1), item(2)], asked=10)
    taken = [one.take(0, PLACES), one.take(0, PLACES), one.take(0, PLACES)]
    assert taken == [item(1), item(2), None]
    one.pulled([item(1)], asked=10)
    assert one.take(0, PLACES) is None, "it is under way"


def test_a_full_or_closed_lane_takes_nothing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MOST_WAITING", 2)
    one = Lane(item(0))
    assert [one.offer(item(number)) for number in (1, 2, 3)] == [True, True, False]
    one.breaker = opened()
    assert one.turn_away() == [item(1), item(2)]
    assert not one.offer(item(4))
    assert one.behind, "what it did not take is in the table"
    assert one.wants(now=0, free=PLACES) == 0
    assert one.wants(now=6, free=PLACES) == 1, "a probe"


def test_a_lane_pulls_when_it_is_behind_and_has_room_and_again_when_it_got_all_it_asked() -> None:
    one = Lane(item(0))
    assert one.wants(0, PLACES) == 0, "nothing is known to be due"
    one.behind = True
    asked = one.wants(0, PLACES)
    assert asked == 16
    one.behind = False  # as when the pull begins
    one.pulled([item(number) for number in range(asked)], asked)
    assert one.behind, "there may be more"
    assert one.wants(0, PLACES) == 0, "first what is here"
