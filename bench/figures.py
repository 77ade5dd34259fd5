"""What a measurement is asked for, and what it came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.processes import ROLES, SERVICES
from bench.system import System
from bench.tally import Percentiles, Rates
from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard. Times are seconds."""

    seconds: float = 15.0
    connections: int = 256
    backlog: int = 1_000
    """Payments that may be accepted and not delivered, in closed scenarios."""
    rate: float | None = None
    """Payments a second that are offered, where a scenario offers a rate."""
    given: System | None = None
    """A system that runs already, in place of private ones."""

    def require_private(self) -> None:
        """Raise Misconfigured where a system was given: nothing is put into the tables of one that
        others use, and none of its processes is stopped."""
        if self.given is not None:
            raise Misconfigured("this scenario needs a private system: leave --url out")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one scenario came to."""

    scenario: str
    payments: int
    """Counted in the measured seconds: delivered, or where nothing is delivered, accepted or
    settled."""
    rates: Rates
    accept: Percentiles | None
    delivered: Percentiles | None
    """From the moment a request was due until the merchant heard of its outcome."""
    cpu: Mapping[str, float]
    """Microseconds for each payment, by role."""
    load_share: float
    """Of one core, that making and hearing the load took."""
    memory: dict[str, float]
    """Megabytes, by role, at the end."""
    batches: dict[str, float] = field(default_factory=dict)
    """Rows in a mean statement, by step."""
    refusals: dict[str, int] = field(default_factory=dict)
    verified: int = 0
    """Signatures that were verified."""
    offered: float | None = None
    """Payments a second that were offered, where a scenario looks at latency by rate."""

    @property
    def cpu_total(self) -> float:
        """Microseconds for each payment of everything but the load."""
        return sum(self.cpu[role] for role in ROLES if role != "load")

    @property
    def services_memory(self) -> float:
        """Megabytes of the three services together."""
        return sum(self.memory[service] for service in SERVICES)
