"""How many attempts one endpoint is sent at once: a pure, adapting bound.

Additive increase, multiplicative decrease (Chiu and Jain, 1989): as many more as it takes well,
half as many when it fails. What is left of the notifier bounds it besides (dynamic thresholds,
Choudhury and Hahne, 1998), and a quarter of it is for those alone that have lately proved quick:
however many endpoints are slow or dead, the others find a place.
"""

from dataclasses import dataclass
from typing import Final

INITIAL: Final = 8.0
LARGEST: Final = 256.0
SHARE: Final = 1 / 3
"""Of the places that are free, what one endpoint may have: alone, it comes to a quarter of all."""
RESERVED: Final = 1 / 4
"""Of all places, what is kept for endpoints that are quick."""
QUICK: Final = 1.0
"""Seconds within which a quick endpoint takes an attempt."""


@dataclass(slots=True)
class Window:
    """The bound of one endpoint. Times are monotonic seconds."""

    size: float = INITIAL
    _halved_at: float = float("-inf")

    def allows(self, in_flight: int, free: int) -> bool:
        """Whether one more attempt may begin, when `free` places are left for such as this."""
        return free > 0 and in_flight < self.size and in_flight < max(1.0, SHARE * free)

    def succeeded(self, in_flight: int) -> None:
        """An attempt was taken well while `in_flight` were under way: more, if that was the bound.

        An endpoint that is sent little proves nothing (RFC 7661).
        """
        if in_flight >= self.size / 2:
            self.size = min(LARGEST, self.size + 1 / self.size)

    def failed(self, started_at: float, now: float) -> None:
        """An attempt that began at `started_at` failed: half of it, once for all that was under way
        together."""
        if started_at >= self._halved_at:
            self.size = max(1.0, self.size / 2)
            self._halved_at = now
