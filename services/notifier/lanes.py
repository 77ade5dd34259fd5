"""Who is next: the lanes of all endpoints, and the places that they share. No I/O.

A lane that may not begin anything leaves the line. It comes back when an attempt of its own ends,
when its breaker lets it, or with the pace: so that asking who is next costs what is begun, however
many wait.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from services.notifier.lane import Lane
from services.notifier.pace import TICK, Pace
from services.notifier.window import RESERVED
from shared.messages import Item

MOST_FIRSTS: Final = 100_000
"""First attempts that may wait here in all; what is more waits in the table."""
MOST_LANES: Final = 10_000
"""Endpoints that are remembered while nothing waits for them: how wide their lanes are, and whether
they are quick."""


class Lanes:
    """At most `places` attempts are under way, and while there is news at most `backlog_rate` a
    second begin from backlogs. Times are monotonic seconds."""

    def __init__(self, places: int, backlog_rate: float) -> None:
        self._free = places
        self._reserved = int(RESERVED * places)
        self._places = places
        self._pace = Pace(backlog_rate)
        self._all: dict[Item, Lane] = {}
        # Lanes in which something waits, whose turn is next first: those that are quick, for which
        # places are kept, and the others.
        self._line = {True: OrderedDict[Item, Lane](), False: OrderedDict[Item, Lane]()}
        self._held_up: dict[Item, Lane] = {}
        """Lanes that wait for the pace alone."""
        self._hungry: dict[Item, Lane] = {}
        """Lanes that may want to pull."""
        self._refusing: dict[Item, Lane] = {}
        """Lanes that took no first attempts when they were last looked at."""
        self._firsts = 0

    def of(self, endpoint: Item) -> Lane:
        """The endpoint's lane."""
        lane = self._all.get(endpoint)
        if lane is None:
            if len(self._all) >= MOST_LANES:
                self._all = {e: known for e, known in self._all.items() if not known.forgettable}
            lane = self._all[endpoint] = Lane(endpoint)
        return lane

    @property
    def under_way(self) -> int:
        """Attempts that have a place."""
        return self._places - self._free

    @property
    def are_idle(self) -> bool:
        """Whether nothing waits or is to be pulled, but for what breakers hold off."""
        return all(lane.idle or not lane.breaker.closed for lane in self._all.values())

    def take_in(self, lane: Lane, item: Item, now: float) -> bool:
        """Take in a first attempt; False when it must wait in the table."""
        if item.id in lane.here:
            return True
        if self._firsts >= MOST_FIRSTS or not lane.offer(item):
            self._refusing[lane.endpoint] = lane
            return False
        self._firsts += 1
        self._pace.news(now)
        self.line_up(lane)
        return True

    def refusing(self) -> Iterable[Item]:
        """The endpoints whose first attempts must wait in the table."""
        self._refusing = {e: lane for e, lane in self._refusing.items() if lane.refuses}
        return self._refusing.keys()

    def empty(self, lane: Lane) -> list[Item]:
        """Turn away what waits in a lane; returns its first attempts."""
        firsts = lane.turn_away()
        self._firsts -= len(firsts)
        self._refusing[lane.endpoint] = lane
        return firsts

    def empty_all(self) -> list[Item]:
        """Turn away all that waits; returns the first attempts."""
        return [item for lane in self._all.values() for item in self.empty(lane)]

    def fall_behind(self, lane: Lane) -> None:
        """The table has, or may have, more that is due at the lane's endpoint."""
        lane.behind = True
        self.line_up(lane)

    def line_up(self, lane: Lane) -> None:
        """Have a lane come to its turn, if it has something to do."""
        if lane.waits:
            self._line[not lane.quick].pop(lane.endpoint, None)
            self._line[lane.quick].setdefault(lane.endpoint, lane)
        if lane.behind:
            self._hungry[lane.endpoint] = lane

    def begin(self, now: float) -> Iterator[tuple[Lane, Item]]:
        """All that may begin now, one from each lane in turns; each has its place."""
        for quick, line in self._line.items():
            while line:
                free = self._free if quick else self._free - self._reserved
                if free <= 0:
                    break
                _, lane = line.popitem(last=False)
                item = self._take(lane, now, free)
                if item is not None:
                    self._free -= 1
                    self.line_up(lane)
                    yield lane, item

    def _take(self, lane: Lane, now: float, free: int) -> Item | None:
        firsts, backlog = len(lane.first), len(lane.backlog)
        held_up = backlog > 0 and self._pace.wait(now) > 0
        item = lane.take(now, free, backlog=not held_up)
        self._firsts -= firsts - len(lane.first)
        if len(lane.backlog) < backlog:
            self._pace.begun(now)
        if item is None and held_up and not firsts:
            self._held_up[lane.endpoint] = lane
        return item

    def ended(self, lane: Lane, item: Item) -> None:
        """An attempt has ended, however: its place is free."""
        self._free += 1
        lane.finished(item)

    def held_up(self, now: float) -> float | None:
        """Seconds until the pace lets more begin; None when it keeps nothing waiting."""
        return max(self._pace.wait(now), TICK) if self._held_up else None

    def resume(self) -> None:
        """Have those come to their turn that waited for the pace."""
        held_up, self._held_up = self._held_up, {}
        for lane in held_up.values():
            self.line_up(lane)

    def pulls(self, now: float) -> Iterator[tuple[Lane, int]]:
        """The lanes that are to pull now, and how much."""
        hungry, self._hungry = self._hungry, {}
        for lane in hungry.values():
            wanted = lane.wants(now, self._free if lane.quick else self._free - self._reserved)
            if wanted:
                lane.behind, lane.pulling = False, True
                yield lane, wanted
