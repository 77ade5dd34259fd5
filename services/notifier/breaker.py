"""Whether an endpoint is tried at all: a circuit breaker as a pure value.

Closed, everything passes. After some failures with no success between them it opens: nothing is
sent for a while, and what waits keeps its attempts. Then one attempt is made as a probe, whose
success closes the breaker and whose failure opens it for twice as long.
"""

from dataclasses import dataclass
from typing import Final

from services.notifier.policy import JITTER

FAILURES: Final = 5
"""Failures, with no success between them, that open it."""
SHORTEST: Final = 5.0
LONGEST: Final = 300.0
"""Seconds that it stays open, the first time and at most."""


@dataclass(slots=True)
class Breaker:
    """The breaker of one endpoint. Times are monotonic seconds."""

    failures: int = 0
    opened: int = 0
    """How often it has opened since it was last closed."""
    probe_at: float | None = None
    """When it may be tried again; None while closed."""
    _opened_at: float = 0.0

    @property
    def closed(self) -> bool:
        """Whether attempts pass."""
        return self.probe_at is None

    def allows(self, in_flight: int, now: float) -> bool:
        """Whether an attempt may begin now: any while closed, one alone as a probe."""
        return self.probe_at is None or (in_flight == 0 and now >= self.probe_at)

    def probe(self, now: float) -> None:
        """Somebody has reason to believe that the endpoint is well: try it now."""
        if self.probe_at is not None:
            self.probe_at = min(self.probe_at, now)

    def rest(self) -> None:
        """Nothing is due to try it with: let pass what comes. The next failure opens it again, for
        longer."""
        self.probe_at = None

    def succeeded(self) -> None:
        """The endpoint took an attempt: it is well."""
        self.failures = self.opened = 0
        self.probe_at = None

    def failed(self, started_at: float, now: float, rand: float) -> None:
        """An attempt that began at `started_at` failed, for `rand` in [0, 1).

        What began before it opened says nothing new.
        """
        self.failures += 1
        if self.failures < FAILURES or (self.probe_at is not None and started_at < self._opened_at):
            return
        self.opened += 1
        pause = min(LONGEST, SHORTEST * 2.0 ** min(self.opened - 1, 30))
        self._opened_at = now
        self.probe_at = now + pause * (1 + JITTER * rand)
