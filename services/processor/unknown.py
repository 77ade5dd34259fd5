"""When to ask a gateway again about an outcome that it did not tell. A pure rule."""

from datetime import datetime


def is_due(
    *,
    unknown_since: datetime,
    last_asked: datetime,
    now: datetime,
    shortest: float,
    longest: float,
) -> bool:
    """Whether to ask at `now`: the wait doubles with the age, from `shortest` to `longest` seconds.

    The wait is as long as the outcome had been unknown when it was last asked for, so the n-th
    question comes about 2ⁿ·`shortest` after the first.
    """
    age_when_asked = (last_asked - unknown_since).total_seconds()
    wait = min(max(age_when_asked, shortest), longest)
    return (now - last_asked).total_seconds() >= wait
