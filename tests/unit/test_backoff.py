"""Waits grow, are bounded and never vanish."""

from hypothesis import given
from hypothesis import strategies as st

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
