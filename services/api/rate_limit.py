"""A token bucket for each user, as a pure function of its arguments.

The bucket is kept as one number, the theoretical arrival time of GCRA (ITU-T I.371): the moment at
which the bucket is full again. A user who has been idle that long is indistinguishable from a new
one and is forgotten, so memory follows the users of the last few seconds, not of all time.
"""

import math
from typing import Final

from msgspec import Struct

MAX_USERS: Final = 1_000_000
"""Users remembered in one generation. Beyond it the older generation goes early, which can only
forgive, never refuse."""


class Verdict(Struct, frozen=True):
    """What the bucket says of one request."""

    allowed: bool
    remaining: int
    """Requests that would be allowed now."""
    reset: int
    """Whole seconds until the bucket is full."""
    retry_after: int
    """Whole seconds until a request is allowed; 0 when this one is."""


class RateLimiter:
    """`rate` requests a second for each user, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = self._interval * burst
        self._burst = burst
        self._current: dict[str, float] = {}
        self._previous: dict[str, float] = {}
        self._turned_at = -math.inf
        self.policy = f'"default";q={burst};w={max(1, math.ceil(self._tolerance))}'
        """The RateLimit-Policy field (draft-ietf-httpapi-ratelimit-headers-11)."""

    @property
    def users(self) -> int:
        """How many users are remembered."""
        return len(self._current) + len(self._previous)

    def take(self, user: str, now: float) -> Verdict:
        """Spend one token of `user` at `now` (monotonic seconds), if there is one."""
        if now - self._turned_at >= self._tolerance or len(self._current) >= MAX_USERS:
            # Whoever is only in the older generation has been idle for a whole refill.
            self._previous, self._current, self._turned_at = self._current, {}, now
        known = self._current.get(user)
        full_at = max(self._previous.get(user, now) if known is None else known, now)
        after = full_at + self._interval
        # A hair of tolerance: sums of intervals are floats.
        if after - now > self._tolerance + 1e-9:
            self._current[user] = full_at
            wait = after - now - self._tolerance
            return Verdict(False, 0, math.ceil(full_at - now), max(1, math.ceil(wait)))
        self._current[user] = after
        remaining = int((self._tolerance - (after - now)) / self._interval + 1e-6)
        return Verdict(True, remaining, math.ceil(after - now), 0)


def field(verdict: Verdict) -> str:
    """The RateLimit field: what remains, and the seconds until it is whole again."""
    return f'"default";r={verdict.remaining};t={verdict.reset}'
