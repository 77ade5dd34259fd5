"""A running system with a merchant that hears of its payments: what every scenario stands on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bench.figures import Figures, Plan
from bench.load import Load
from bench.processes import SERVICES, Processes, Reading, spent
from bench.prometheus import batch_sizes, read_metrics
from bench.receiver import Receiver, open_receiver
from bench.system import System, private_system
from bench.tally import Tally, percentiles
from bench.tenants import make_accounts, unsubscribe
from bench.traffic import Payments, Tenant
from cli.verify import examine
from shared.db import open_database
from shared.errors import FlorinError

PATIENCE: Final = 180.0
"""Seconds that what was accepted may take to be delivered, when the load is over."""
LOOKING: Final = 1.0
"""Seconds before what is measured: what runs is looked for and asked what it counts, and the traces
of that are lost."""
_OBJECT: Final = b'"data":{"object":{"id":"'


class Broken(FlorinError):  # noqa: N818 - it says what happened
    """A rule of `florin verify` was broken, or a signature: there is nothing to print."""


@dataclass(slots=True)
class Bench:
    """A running system with a merchant that hears of its payments."""

    system: System
    processes: Processes
    receiver: Receiver
    plan: Plan
    tally: Tally = field(default_factory=Tally)
    filled: int = 0
    """Payments that were put into the tables."""

    async def accounts(self, number: int) -> list[str]:
        """Keys of so many new accounts; of a system that was given, its key alone."""
        if self.plan.given is not None:
            return [self.plan.given.key]
        return await make_accounts(self.own_database_url(), number)

    def own_database_url(self) -> str:
        """The database of a private system. Raises Misconfigured for one that was given."""
        self.plan.require_private()
        assert self.system.database_url is not None  # noqa: S101 - a private one has one
        return self.system.database_url

    def payments(
        self, tenants: Sequence[Tenant], *, refunds: float = 0.0, repeats: float = 0.0
    ) -> Payments:
        """Traffic of these tenants, whose completed payments may be refunded."""
        parts = urlsplit(self.system.url)
        traffic = Payments(
            f"{parts.hostname}:{parts.port}", tenants, refunds=refunds, repeats=repeats
        )
        self.tally.on_object = traffic.completed
        return traffic

    def load(self, traffic: Payments) -> Load:
        """Clients that send this traffic."""
        parts = urlsplit(self.system.url)
        assert parts.hostname is not None  # noqa: S101 - `up` says both
        assert parts.port is not None  # noqa: S101
        return Load(parts.hostname, parts.port, traffic, self.tally)

    def hear(self, _: bytes, body: bytes, __: float) -> None:
        """The merchant heard of an outcome."""
        at = body.find(_OBJECT) + len(_OBJECT)
        self.tally.delivered(body[at : body.index(b'"', at)].decode(), time.monotonic())

    async def settle(self) -> None:
        """Wait until all that was accepted is delivered."""
        async with asyncio.timeout(PATIENCE):
            while self.tally.open:  # noqa: ASYNC110 - who counts has no time for an event
                await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def held_still(self, *services: str) -> Iterator[None]:
        """Stop these services' processes (SIGSTOP) during the block: they cost nothing meanwhile,
        and lose nothing."""
        processes = [process for name in services for process in self.processes.all_of(name)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    async def _metrics(self, services: Sequence[str]) -> dict[str, str]:
        return {name: await read_metrics(self.processes.of(name), name) for name in services}

    @contextlib.asynccontextmanager
    async def measured(
        self, services: Sequence[str] = SERVICES, *, looking: float = LOOKING
    ) -> AsyncIterator["Window"]:
        """Read the clocks before and after the block, and what these services show. The block
        begins `looking` seconds late, for to look costs more than many payments do."""
        services = services if self.plan.given is None else ()
        metrics = await self._metrics(services)
        self.processes.look()
        await asyncio.sleep(looking)
        window = Window(self.processes.read(), metrics)
        yield window
        window.after = self.processes.read()
        window.metrics_after = await self._metrics(services)
        window.memory = self.processes.memory()

    def figures(self, name: str, window: "Window", *, delivered: bool = True) -> Figures:
        """Of what happened in `window`."""
        start, end = window.before.at, window.after.at
        counted = self.tally.deliveries if delivered else self.tally.accepts
        rates = counted.rates(start, end)
        payments = len(counted.latencies(start, end))
        return Figures(
            scenario=name,
            payments=payments,
            rates=rates,
            accept=percentiles(self.tally.accepts.latencies(start, end)),
            delivered=percentiles(self.tally.deliveries.latencies(start, end)),
            cpu=window.cpu(payments),
            load_share=window.load_share(),
            memory=window.memory,
            batches=batch_sizes(window.metrics_before, window.metrics_after),
            refusals=self.tally.take_refusals(),
            verified=self.receiver.verified,
        )


@dataclass(slots=True)
class Window:
    """A span of the measured time."""

    before: Reading
    metrics_before: dict[str, str]
    after: Reading = field(init=False)
    metrics_after: dict[str, str] = field(init=False)
    memory: dict[str, float] = field(init=False)

    def cpu(self, payments: int) -> dict[str, float]:
        """Microseconds for each payment, by role."""
        used = spent(self.before, self.after)
        return {role: round(1e6 * seconds / max(1, payments), 1) for role, seconds in used.items()}

    def load_share(self) -> float:
        """Of one core, that making and hearing the load took."""
        seconds = self.after.at - self.before.at
        return round(spent(self.before, self.after)["load"] / seconds, 3)


@contextlib.asynccontextmanager
async def open_bench(plan: Plan) -> AsyncIterator[Bench]:
    """A system for one scenario, verified at the end of the block: a private one, or the one that
    the plan names. Raises Broken."""
    system_of = private_system() if plan.given is None else contextlib.nullcontext(plan.given)
    async with open_receiver() as receiver, system_of as system:
        bench = Bench(system, Processes(system.pid), receiver, plan)
        receiver.on_event = bench.hear
        try:
            yield bench
        finally:
            receiver.end()
            if plan.given is not None:
                await unsubscribe(system.url, plan.given.key, receiver)
        if system.database_url is not None:
            await verify_database(system.database_url)
        if receiver.forged:
            raise Broken(f"signatures that do not verify: {', '.join(receiver.forged[:5])}")


async def verify_database(database_url: str) -> None:
    """Raise Broken when a rule of `florin verify` is."""
    database = await open_database(database_url, service="bench", size=1, wait=5, patient=True)
    try:
        broken = [finding for finding in await examine(database) if finding.violations]
    finally:
        await database.close()
    if broken:
        raise Broken("; ".join(f"{one.rule}: {one.offending[:3]}" for one in broken))
