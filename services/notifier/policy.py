"""What the result of an attempt means for its delivery: a pure decision."""

import email.utils
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

JITTER: Final = 0.2
"""The share of a delay that chance may add, so that what failed together returns apart."""
LONGEST: Final = 86_400.0
"""Seconds; no Retry-After defers longer."""
GONE: Final = 410


class Result(Struct, frozen=True):
    """What one attempt brought. `status_code` is None when there was no response."""

    started_at: datetime
    duration_ms: int
    status_code: int | None
    response_start: str | None = None
    error: str | None = None
    retry_after: str | None = None
    """The Retry-After header of a 429 or 503."""
    sent: bool = True
    """False when nothing was sent, so that it says nothing about the endpoint."""

    @property
    def succeeded(self) -> bool:
        """Whether the endpoint heard it: 2xx, and nothing else, not a redirect either."""
        return self.status_code is not None and 200 <= self.status_code < 300


class Delivered(Struct, frozen=True):
    """The endpoint heard it: a 2xx."""


class Retry(Struct, frozen=True):
    """Once more at `at`; until then the message waits in the queue of `rung` seconds."""

    at: datetime
    rung: float


class Dead(Struct, frozen=True):
    """No attempt is left. A person must look, unless there is nobody left to tell."""

    reason: str
    has_letter: bool = True


class Held(Struct, frozen=True):
    """Once more when its endpoint is enabled again."""


Verdict = Delivered | Retry | Held | Dead


class Recovered(Struct, frozen=True):
    """The endpoint took something, after failures."""


class Failing(Struct, frozen=True):
    """The endpoint took nothing, for the first time since it last took something."""


class Disable(Struct, frozen=True):
    """The endpoint is to be sent nothing more until somebody enables it."""

    reason: str


Health = Recovered | Failing | Disable


def judge(
    result: Result, *, number: int, delays: Sequence[float], now: datetime, rand: float
) -> Verdict:
    """What follows from attempt `number` (1 is the first), for `rand` in [0, 1).

    `delays` are the seconds before each further attempt; Retry-After is a floor. 410 (Gone)
    disables the endpoint: what it did not take is held.
    """
    if result.succeeded:
        return Delivered()
    if result.status_code == GONE:
        return Held()
    if number > len(delays):
        reason = result.error or f"the endpoint answered {result.status_code}"
        return Dead(f"{number} attempts failed; the last: {reason}")
    wait = delays[number - 1] * (1 + JITTER * rand)
    if result.retry_after is not None:
        wait = max(wait, min(retry_after_seconds(result.retry_after, now), LONGEST))
    return Retry(now + timedelta(seconds=wait), rung_for(wait, delays))


def examine(
    result: Result, *, failing_since: datetime | None, now: datetime, disable_after: float
) -> Health | None:
    """What an attempt says about its endpoint, which has failed since `failing_since` if at all;
    None when nothing is new. Failing for `disable_after` seconds disables it."""
    if not result.sent:
        return None
    if result.succeeded:
        return Recovered() if failing_since else None
    if result.status_code == GONE:
        return Disable("it answered 410 Gone")
    if failing_since is None:
        return Failing()
    if now - failing_since < timedelta(seconds=disable_after):
        return None
    reason = result.error or f"it answered {result.status_code}"
    return Disable(f"it has failed since {failing_since:%Y-%m-%d %H:%M} UTC; the last: {reason}")


def rung_for(wait: float, delays: Sequence[float]) -> float:
    """The longest delay that is not longer than `wait`, so that a message is never late; the
    shortest when all are."""
    return max((delay for delay in delays if delay <= wait), default=min(delays))


def retry_after_seconds(value: str, now: datetime) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110 §10.2.3); 0 when it makes no sense."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value[:12])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
