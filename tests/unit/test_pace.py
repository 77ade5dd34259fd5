"""The backlog is worked off at a rate while there is news, and freely when there is none."""

from hypothesis import given
from hypothesis import strategies as st

from services.notifier.pace import QUIET, TICK, Pace


def begun_in(pace: Pace, start: float, seconds: float, *, news: bool) -> int:
    """How many begin in a while, when as many as may do; with news all along, or none."""
    now, begun = start, 0
    while now < start + seconds and begun < 10_000:
        if news:
            pace.news(now)
        wait = pace.wait(now)
        if wait:
            now += wait
        else:
            pace.begun(now)
            begun += 1
    return begun


@given(st.floats(1, 1000), st.floats(1, 5))
def test_while_there_is_news_it_keeps_to_its_rate(rate: float, seconds: float) -> None:
    begun = begun_in(Pace(rate), 100.0, seconds, news=True)
    assert rate * seconds - 1 <= begun <= rate * (seconds + TICK) + 3


def test_without_news_nothing_is_kept_waiting() -> None:
    pace = Pace(1.0)
    pace.news(100.0)
    for _ in range(50):
        pace.begun(100.0)
    assert pace.wait(100.0 + QUIET) > 0
    assert pace.wait(100.0 + QUIET + 0.01) == 0
