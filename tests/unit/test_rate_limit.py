"""A token bucket: burst at once, rate in the long run, memory for the users of the moment."""

from hypothesis import given
from hypothesis import strategies as st

from services.api.rate_limit import RateLimiter, Verdict, field


def test_the_burst_passes_at_once_and_the_next_is_refused() -> None:
    limiter = RateLimiter(rate=10, burst=10)
    verdicts = [limiter.take("user", 100.0) for _ in range(15)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 10 + [False] * 5
    assert [verdict.remaining for verdict in verdicts[:10]] == list(range(9, -1, -1))
    assert verdicts[10].retry_after == 1


def test_a_token_returns_after_its_interval() -> None:
    limiter = RateLimiter(rate=10, burst=10)
    for _ in range(10):
        limiter.take("user", 0.0)
    assert not limiter.take("user", 0.09).allowed
    assert limiter.take("user", 0.1).allowed
    assert not limiter.take("user", 0.1).allowed


def test_users_do_not_pay_for_each_other() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.take("a", 0.0).allowed
    assert not limiter.take("a", 0.0).allowed
    assert limiter.take("b", 0.0).allowed


def test_a_million_users_are_forgotten_when_they_are_idle() -> None:
    limiter = RateLimiter(rate=10, burst=10)
    for user in range(1_000_000):
        limiter.take(str(user), user / 100_000)
    # The bucket is full after a second: only the users of the last two are worth remembering.
    assert limiter.users <= 210_000


@given(
    st.floats(0.1, 100),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_no_window_lets_more_through_than_burst_and_rate(
    rate: float, burst: int, gaps: list[float]
) -> None:
    limiter = RateLimiter(rate, burst)
    now, passed = 1000.0, []
    for gap in gaps:
        now += gap
        if limiter.take("user", now).allowed:
            passed.append(now)
    for start in range(len(passed)):
        for end in range(start, len(passed)):
            elapsed = passed[end] - passed[start]
            assert end - start + 1 <= burst + rate * elapsed + 1e-6


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 3), max_size=80))
def test_who_waits_as_long_as_told_is_let_in(rate: float, burst: int, gaps: list[float]) -> None:
    limiter = RateLimiter(rate, burst)
    now = 1000.0
    for gap in gaps:
        now += gap
        verdict = limiter.take("user", now)
        if not verdict.allowed:
            now += verdict.retry_after
            assert limiter.take("user", now).allowed


def test_the_fields_have_the_form_of_the_draft() -> None:
    assert RateLimiter(rate=10, burst=10).policy == '"default";q=10;w=1'
    assert field(Verdict(True, 9, 1, 0)) == '"default";r=9;t=1'
