"""What was accepted, refused and delivered, and when. Times are monotonic seconds."""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of latencies, in milliseconds. Nearest rank, as all are known."""

    p50: float
    p90: float
    p99: float
    max: float


def percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """Of latencies in seconds; None of none."""
    if not seconds:
        return None
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return Percentiles(at(0.5), at(0.9), at(0.99), round(1000 * ordered[-1], 1))


@dataclass(frozen=True, slots=True)
class Rates:
    """How often something happened a second, over windows of one second."""

    median: float
    min: float
    max: float
    windows: list[int]


class Series:
    """Something that happened, at times that only grow, each with its latency in seconds."""

    def __init__(self) -> None:
        self._at = array("d")
        self._seconds = array("d")

    def __len__(self) -> int:
        return len(self._at)

    def add(self, at: float, seconds: float) -> None:
        """One more."""
        self._at.append(at)
        self._seconds.append(seconds)

    def latencies(self, start: float, end: float) -> Sequence[float]:
        """Of what happened from `start` until before `end`."""
        return self._seconds[bisect_left(self._at, start) : bisect_left(self._at, end)]

    def rates(self, start: float, end: float) -> Rates:
        """In the whole seconds between `start` and `end`."""
        counts = count_by_second(self._at, start, end)
        return Rates(median(counts), min(counts), max(counts), counts)


def count_by_second(times: Sequence[float], start: float, end: float) -> list[int]:
    """How many of the ordered `times` are in each whole second from `start` on, at least one."""
    edges = [start + second for second in range(max(1, int(end - start + 1e-6)) + 1)]
    places = [bisect_left(times, edge) for edge in edges]
    return [after - before for before, after in pairwise(places)]


@dataclass(slots=True)
class Tally:
    """One run. What is delivered may be told before the answer that accepted it is read."""

    accepts: Series = field(default_factory=Series)
    deliveries: Series = field(default_factory=Series)
    repeats: int = 0
    refusals: Counter[int] = field(default_factory=Counter)
    open: int = 0
    """Accepted, and not delivered."""
    on_delivered: Callable[[], None] | None = None
    on_object: Callable[[str], None] | None = None
    """Is told the id of what was delivered."""
    _sent_at: dict[str, float] = field(default_factory=dict)
    _early: dict[str, float] = field(default_factory=dict)

    def accepted(self, id_: str | None, sent_at: float, now: float) -> None:
        """A request was answered with 2xx; `id_` is what it made, None when it was a repeat."""
        self.accepts.add(now, now - sent_at)
        if id_ is None:
            self.repeats += 1
            return
        heard_at = self._early.pop(id_, None)
        if heard_at is not None:
            self.deliveries.add(now, heard_at - sent_at)
            return
        self._sent_at[id_] = sent_at
        self.open += 1

    def refused(self, status: int, now: float) -> None:
        """A request was answered with something else."""
        self.refusals[status] += 1

    def take_refusals(self) -> dict[str, int]:
        """How many were refused since this was last asked, by status."""
        taken, self.refusals = self.refusals, Counter()
        return {str(status): number for status, number in taken.items()}

    def delivered(self, id_: str, now: float) -> None:
        """The merchant heard of it; a second time changes nothing."""
        sent_at = self._sent_at.pop(id_, None)
        if sent_at is None:
            self._early[id_] = now
            return
        self.open -= 1
        self.deliveries.add(now, now - sent_at)
        if self.on_object is not None:
            self.on_object(id_)
        if self.on_delivered is not None:
            self.on_delivered()
