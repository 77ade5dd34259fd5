"""How fast the backlog is worked off while there is news: a pure rate.

What endpoints did not take before costs the same processor time as what has just happened. While
there are first attempts to make, attempts from the backlog begin at this rate at most; when there
are none, only their endpoints bound them.
"""

from typing import Final

QUIET: Final = 1.0
"""Seconds without a first attempt after which nothing is kept waiting by the backlog."""
TICK: Final = 0.2
"""Seconds between looks at what the pace keeps waiting. What may begin in that time begins at once,
so that it is claimed and recorded in sets: a commit for each would cost everybody's."""


class Pace:
    """At most `rate` attempts a second, by the generic cell rate algorithm (ITU-T I.371)."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._burst = max(1.0, rate * TICK)
        self._due = float("-inf")
        self._news_at = float("-inf")

    def news(self, now: float) -> None:
        """A first attempt is to be made."""
        self._news_at = now

    def wait(self, now: float) -> float:
        """Seconds until one from the backlog may begin; 0 for now."""
        if now - self._news_at > QUIET:
            return 0.0
        return max(0.0, self._due - self._burst * self._interval - now)

    def begun(self, now: float) -> None:
        """One from the backlog has begun."""
        self._due = max(self._due, now) + self._interval
