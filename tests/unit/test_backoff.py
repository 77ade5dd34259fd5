"""Waits grow, are bounded and never vanish."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.processor.unknown import is_due
from shared.backoff import exponential

rands = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 1000), rands)
def test_a_wait_is_positive_and_at_most_the_cap(
    attempt: int, base: float, cap: float, rand: float
) -> None:
    assert 0 < exponential(attempt, base=base, cap=cap, rand=rand) <= cap


@given(st.integers(1, 50), rands)
def test_waits_grow(attempt: int, rand: float) -> None:
    one = exponential(attempt, base=1, cap=1e9, rand=rand)
    assert exponential(attempt + 1, base=1, cap=1e9, rand=rand) >= one


def test_the_gateway_is_asked_ever_more_rarely_about_an_unknown_outcome() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    asked, times = since, []
    for second in range(1, 20_000):
        now = since + timedelta(seconds=second)
        if is_due(unknown_since=since, last_asked=asked, now=now, shortest=5, longest=3600):
            times.append(second)
            asked = now
    assert times[:6] == [5, 10, 20, 40, 80, 160]
    assert max(after - before for before, after in itertools.pairwise(times)) == 3600
