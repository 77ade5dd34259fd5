"""What follows from an attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.policy import (
    Dead,
    Delivered,
    Result,
    Retry,
    judge,
    retry_after_seconds,
    rung_for,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DELAYS = (5.0, 300.0, 1800.0, 7200.0)
rands = st.floats(0, 1, exclude_max=True)


def result(status: int | None, retry_after: str | None = None) -> Result:
    error = None if status else "connection refused"
    return Result(NOW, 5, status, error=error, retry_after=retry_after)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert judge(result(status), number=1, delays=DELAYS, now=NOW, rand=0) == Delivered()


@pytest.mark.parametrize("status", [None, 199, 301, 302, 307, 400, 404, 429, 500, 503])
def test_everything_else_is_tried_again_a_redirect_too(status: int | None) -> None:
    verdict = judge(result(status), number=1, delays=DELAYS, now=NOW, rand=0)
    assert verdict == Retry(NOW + timedelta(seconds=5), 5.0)


@given(st.integers(1, 4), rands)
def test_each_wait_is_that_of_the_schedule_plus_at_most_a_fifth(number: int, rand: float) -> None:
    verdict = judge(result(500), number=number, delays=DELAYS, now=NOW, rand=rand)
    assert isinstance(verdict, Retry)
    wait = (verdict.at - NOW).total_seconds()
    assert DELAYS[number - 1] <= wait <= DELAYS[number - 1] * 1.2 + 1e-3


def test_the_last_failure_is_death_with_the_reason() -> None:
    verdict = judge(result(500), number=5, delays=DELAYS, now=NOW, rand=0)
    assert verdict == Dead("5 attempts failed; the last: the endpoint answered 500")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("9" * 400, 999_999_999_999),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_survived(value: str) -> None:
    assert retry_after_seconds(value, NOW) >= 0


@pytest.mark.parametrize(("header", "seconds"), [("60", 60), ("2", 5), ("99999999", 86400)])
def test_retry_after_is_a_floor_with_a_ceiling(header: str, seconds: float) -> None:
    verdict = judge(result(503, header), number=1, delays=DELAYS, now=NOW, rand=0)
    assert isinstance(verdict, Retry)
    assert verdict.at == NOW + timedelta(seconds=seconds)


@given(st.floats(0, 1e6))
def test_a_message_waits_in_a_queue_that_does_not_make_it_late(wait: float) -> None:
    rung = rung_for(wait, DELAYS)
    assert rung in DELAYS
    assert rung <= max(wait, min(DELAYS))
