"""How quick this machine is: the figures of two machines, or of two days, compare only beside it.

At half load a process rests between two pieces of work, and what it needs is no longer in the
caches when it wakes. What that costs differs between machines more than their speed does, and it
is most of the difference between what a payment costs at full load and at half of it.
"""

import json
import os
import statistics
import time
from dataclasses import dataclass
from typing import Final

REST: Final = 0.003
"""Seconds; about what a service rests at a few hundred payments a second."""
_TIMES: Final = 200
_DOCUMENT: Final = {
    "id": "pay_0190f3c2a7d04d0c",
    "amount": "100.50",
    "metadata": {str(n): [n] * 4 for n in range(8)},
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A fixed piece of Python's work, in microseconds of CPU: the median of two hundred times."""

    cores: int
    warm: float
    """One after the other."""
    rested: float
    """Each after REST seconds of sleep."""

    def __str__(self) -> str:
        return (
            f"{self.cores} cores; a fixed piece of work takes {self.warm:,.0f} µs,"
            f" and {self.rested:,.0f} µs after {REST * 1e3:g} ms of rest"
        )


def measure_machine() -> Machine:
    """What this machine is like at this moment; takes a second. Nothing else should run."""
    return Machine(os.cpu_count() or 1, warm=_median(rest=0), rested=_median(rest=REST))


def _median(rest: float) -> float:
    took = []
    for _ in range(_TIMES):
        if rest:
            time.sleep(rest)
        began = time.thread_time_ns()
        for _ in range(5):
            json.loads(json.dumps(_DOCUMENT, indent=1, sort_keys=True))
        took.append((time.thread_time_ns() - began) / 1000)
    return statistics.median(took)
