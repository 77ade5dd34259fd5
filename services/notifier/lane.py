"""What one endpoint has waiting here, and what may be sent to it next: no I/O.

The lane is a window on the endpoint's backlog, which stands in Postgres: what does not fit in stays
there, and is pulled when there is room.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from services.notifier.breaker import Breaker
from services.notifier.window import Window
from shared.messages import Item

MOST_WAITING: Final = 1000
"""First attempts that may wait here for one endpoint."""
FIRST_PER_RETRY: Final = 4
"""First attempts made for each from the backlog, while there are both: new events are not kept
waiting by old failures, nor the other way round."""


@dataclass(slots=True)
class Lane:
    """One endpoint's. `endpoint` refers to its row."""

    endpoint: Item
    first: deque[Item] = field(default_factory=deque)
    """Deliveries that were never attempted."""
    backlog: deque[Item] = field(default_factory=deque)
    """Deliveries that were pulled from what is due."""
    here: set[str] = field(default_factory=set)
    """The ids of all that waits or is under way here."""
    in_flight: int = 0
    behind: bool = False
    """Whether the table may have more that is due."""
    pulling: bool = False
    window: Window = field(default_factory=Window)
    breaker: Breaker = field(default_factory=Breaker)
    quick: bool = False
    """Whether its last attempt was taken, and within a moment."""
    _firsts: int = 0

    def offer(self, item: Item) -> bool:
        """Take a first attempt in; False when it must wait in the table."""
        if item.id in self.here:
            return True
        if self.refuses:
            return False
        self.first.append(item)
        self.here.add(item.id)
        return True

    def pulled(self, items: list[Item], asked: int) -> None:
        """Take in what was due; when it is as much as was asked for, there may be more."""
        for item in items:
            if item.id not in self.here:
                self.backlog.append(item)
                self.here.add(item.id)
        self.behind = self.behind or len(items) >= asked

    def wants(self, now: float, free: int) -> int:
        """How many due deliveries to pull now; 0 for none."""
        if not self._is_hungry(now):
            return 0
        if not self.breaker.closed:
            return 1
        if self.window.allows(self.in_flight, free):
            return 2 * int(self.window.size)
        # To look needs no place: what is here has its turn when there is one.
        return 2 if self.in_flight == 0 else 0

    def put_first(self, item: Item) -> None:
        """Take in one that is due, before all that waits of the backlog: a person asks for it."""
        if item.id not in self.here and len(self.backlog) < MOST_WAITING:
            self.backlog.appendleft(item)
            self.here.add(item.id)

    def _is_hungry(self, now: float) -> bool:
        return (
            self.behind
            and not self.pulling
            and not self.backlog
            and self.breaker.allows(self.in_flight, now)
        )

    def take(self, now: float, free: int, *, backlog: bool = True) -> Item | None:
        """The next delivery to attempt, when one may be; it counts as under way. One from the
        backlog only where `backlog` says so."""
        may_retry = bool(self.backlog) and backlog
        if not (
            (self.first or may_retry)
            and self.breaker.allows(self.in_flight, now)
            and self.window.allows(self.in_flight, free)
        ):
            return None
        self.in_flight += 1
        if self.first and (not may_retry or self._firsts < FIRST_PER_RETRY):
            self._firsts += 1
            return self.first.popleft()
        self._firsts = 0
        return self.backlog.popleft()

    def finished(self, item: Item) -> None:
        """An attempt has ended, however."""
        self.in_flight -= 1
        self.here.discard(item.id)

    def turn_away(self) -> list[Item]:
        """Empty what waits; returns the first attempts, which the table must hear of."""
        firsts = list(self.first)
        self.here.difference_update(item.id for item in (*self.first, *self.backlog))
        self.first.clear()
        self.backlog.clear()
        self.behind = True
        return firsts

    @property
    def refuses(self) -> bool:
        """Whether first attempts must wait in the table."""
        return not self.breaker.closed or len(self.first) >= MOST_WAITING

    @property
    def waits(self) -> bool:
        """Whether something waits here."""
        return bool(self.first or self.backlog)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, is under way, or is to be pulled."""
        return not (self.here or self.behind or self.pulling)

    @property
    def forgettable(self) -> bool:
        """Whether nothing is lost when it is made anew, but for what it has learnt."""
        return self.idle and self.breaker.closed
