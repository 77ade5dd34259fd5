"""Who is next: in turns, with places kept for the quick, and at the cost of what is begun."""

from collections import Counter

import pytest

from services.notifier import lanes as module
from services.notifier.lane import Lane
from services.notifier.lanes import Lanes
from shared.messages import Item


def endpoint(number: int) -> Item:
    return Item("acct", f"we_{number:04}")


def filled(lanes: Lanes, endpoints: int, firsts: int) -> None:
    """First attempts waiting for each of so many endpoints."""
    for e in range(endpoints):
        for n in range(firsts):
            lanes.take_in(lanes.of(endpoint(e)), Item("acct", f"dlv_{e:04}_{n:04}"), now=0)


def test_lanes_have_their_turns_one_after_the_other() -> None:
    lanes = Lanes(places=256, backlog_rate=50)
    filled(lanes, endpoints=3, firsts=3)
    begun = [lane.endpoint.id for lane, _ in lanes.begin(now=0)]
    assert begun == ["we_0000", "we_0001", "we_0002"] * 3
    assert lanes.under_way == 9


def test_who_is_slow_leaves_a_quarter_of_the_places_and_gets_them_back_in_turns() -> None:
    lanes = Lanes(places=40, backlog_rate=50)
    filled(lanes, endpoints=100, firsts=2)
    first = list(lanes.begin(now=0))
    assert len(first) == lanes.under_way == 30
    quick = lanes.of(endpoint(500))
    quick.quick = True
    lanes.take_in(quick, Item("acct", "dlv_quick"), now=0)
    assert [lane.endpoint for lane, _ in lanes.begin(now=0)] == [quick.endpoint]
    for lane, item in first:
        lanes.ended(lane, item)
        lanes.line_up(lane)
    second = [lane.endpoint.id for lane, _ in lanes.begin(now=0)]
    assert second == [endpoint(e).id for e in range(30, 59)], "those who have not had one yet"


def test_while_nobody_may_begin_asking_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(places=40, backlog_rate=50)
    filled(lanes, endpoints=1000, firsts=1)
    list(lanes.begin(now=0))
    asked: Counter[str] = Counter()
    take = Lane.take

    def counted(self: Lane, *args: float, **kwargs: bool) -> Item | None:
        asked[self.endpoint.id] += 1
        return take(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Lane, "take", counted)
    for _ in range(100):
        assert list(lanes.begin(now=0)) == []
    assert asked.total() == 0


def test_what_waits_for_the_pace_comes_back_with_it() -> None:
    lanes = Lanes(places=256, backlog_rate=10)
    lanes.take_in(lanes.of(endpoint(0)), Item("acct", "dlv_news"), now=100.0)
    late = lanes.of(endpoint(1))
    late.pulled([Item("acct", f"dlv_{n}") for n in range(8)], asked=10)
    lanes.line_up(late)
    begun = [lane.endpoint for lane, _ in lanes.begin(now=100.0)]
    assert endpoint(0) in begun
    assert begun.count(endpoint(1)) < 8, "there is news"
    assert lanes.held_up(now=100.0) is not None
    assert list(lanes.begin(now=100.9)) == [], "it has left the line"
    lanes.resume()
    assert list(lanes.begin(now=100.9)) != []


def test_first_attempts_are_bounded_over_all_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FIRSTS", 5)
    lanes = Lanes(places=1, backlog_rate=50)
    taken = [
        lanes.take_in(lanes.of(endpoint(n)), Item("acct", f"dlv_{n}"), now=0) for n in range(8)
    ]
    assert taken == [True] * 5 + [False] * 3
    assert len(lanes.empty_all()) == 5
    assert lanes.take_in(lanes.of(endpoint(9)), Item("acct", "dlv_9"), now=0), "there is room again"


def test_lanes_with_nothing_to_do_are_forgotten_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_LANES", 10)
    lanes = Lanes(places=256, backlog_rate=50)
    busy = lanes.of(endpoint(0))
    lanes.take_in(busy, Item("acct", "dlv_0"), now=0)
    for number in range(1, 100):
        lanes.of(endpoint(number))
    assert lanes.of(endpoint(0)) is busy
    assert len(lanes._all) <= 11
