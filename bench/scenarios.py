"""What is measured: each scenario has a private system of its own, which is verified after it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from bench.bed import LOOKING, PATIENCE, Bench, open_bench
from bench.figures import Figures, Plan
from bench.hello import hello_system
from bench.processes import SERVICES, Processes
from bench.prometheus import read_metrics, total
from bench.receiver import open_receiver
from bench.store import fill, tidy
from bench.tally import Rates
from bench.tenants import add_endpoints, subscribe
from bench.traffic import Payments, Tenant, zipf
from shared.db import open_database

WARM_UP: Final = 3.0
"""Seconds of load before what is measured: connections are made, plans are kept, code is warm."""
GROWN: Final = (10_000, 100_000, 1_000_000)
FILLED_AT_ONCE: Final = 50_000
OVERLOAD: Final = 4_500.0
CROWD: Final = 4_000
"""Clients at once, while too much is offered."""
CALM: Final = 500.0
"""Payments a second, before and after."""
SHARES: Final = (0.1, 0.25, 0.5, 0.75)
"""Of all that goes through, what is offered."""
Step = Callable[[str], None]


async def through(
    bench: Bench, traffic: Payments, name: str, *, services: Sequence[str] = SERVICES
) -> Figures:
    """As many payments as go through from end to end. The metrics of `services` are read."""
    plan = bench.plan
    limit = plan.backlog
    async with bench.load(traffic).connected(plan.connections) as load:
        await load.closed(WARM_UP, limit)
        running = asyncio.create_task(load.closed(LOOKING + plan.seconds, limit))
        async with bench.measured(services) as window:
            await asyncio.sleep(plan.seconds)
        await running
        await bench.settle()
    return bench.figures(name, window)


async def _offered(
    bench: Bench, traffic: Payments, name: str, rate: float, connections: int
) -> Figures:
    """`rate` payments a second, whatever becomes of them."""
    plan = bench.plan
    async with bench.load(traffic).connected(connections) as load:
        running = asyncio.create_task(load.open(WARM_UP + LOOKING + plan.seconds, rate))
        await asyncio.sleep(WARM_UP)
        async with bench.measured() as window:
            await asyncio.sleep(plan.seconds)
        await running
        await bench.settle()
    return bench.figures(name, window)


async def e2e(plan: Plan, step: Step) -> list[Figures]:
    """A hundred accounts of very different size: all that goes through, then half of that."""

    def offered(full: float) -> dict[str, float]:
        return {"e2e at half load": plan.rate or full / 2}

    return await _full_then(plan, step, "e2e", offered)


async def curve(plan: Plan, step: Step) -> list[Figures]:
    """The same accounts: all that goes through, then ever more of it, for what it does to
    latency."""

    def offered(full: float) -> dict[str, float]:
        return {f"curve at {share:.0%}": share * (plan.rate or full) for share in SHARES}

    return await _full_then(plan, step, "curve", offered)


async def _full_then(
    plan: Plan, step: Step, name: str, offered: Callable[[float], dict[str, float]]
) -> list[Figures]:
    """All that goes through, then the rates that are `offered` in its light, each by its name."""
    step(f"{name}: starting")
    async with open_bench(plan) as bench:
        keys = await bench.accounts(100)
        await subscribe(bench.system.url, keys, bench.receiver)
        traffic = bench.payments(zipf(keys))
        step(f"{name}: all that goes through")
        found = [await through(bench, traffic, name)]
        for part, rate in offered(found[0].rates.median).items():
            step(f"{part}: {rate:,.0f}/s")
            figures = await _offered(bench, traffic, part, rate, plan.connections)
            found.append(replace(figures, offered=rate))
        step(f"{name}: verifying")
    return found


async def accept(plan: Plan, step: Step) -> list[Figures]:
    """The API alone: the others are held still meanwhile."""
    plan.require_private()
    step("accept: starting")
    async with open_bench(plan) as bench:
        keys = await bench.accounts(100)
        traffic = bench.payments(zipf(keys))
        with bench.held_still("processor", "notifier"):
            step("accept: all that is accepted")
            async with bench.load(traffic).connected(plan.connections) as load:
                await load.closed(WARM_UP, None)
                running = asyncio.create_task(load.closed(LOOKING + plan.seconds, None))
                async with bench.measured(["api"]) as window:
                    await asyncio.sleep(plan.seconds)
                await running
        step("accept: settling what was accepted")
        await _settled(bench, len(bench.tally.accepts))
    figures = bench.figures("accept", window, delivered=False)
    return [figures, await _hello(plan, step, figures.rates.median)]


async def _hello(plan: Plan, step: Step, rate: float) -> Figures:
    """The same requests, as many a second, to a bare aiohttp server that does nothing with them."""
    step("accept: the same of bare aiohttp")
    async with open_receiver() as receiver, hello_system() as system:
        bench = Bench(system, Processes(system.pid), receiver, plan)
        traffic = bench.payments([Tenant(system.key)])
        async with bench.load(traffic).connected(plan.connections) as load:
            running = asyncio.create_task(load.open(WARM_UP + LOOKING + plan.seconds, rate))
            await asyncio.sleep(WARM_UP)
            async with bench.measured([]) as window:
                await asyncio.sleep(plan.seconds)
            await running
    return bench.figures("bare aiohttp", window, delivered=False)


async def settle(plan: Plan, step: Step) -> list[Figures]:
    """A backlog is drained: nobody asks for anything meanwhile, and no endpoint listens."""
    plan.require_private()
    step("settle: starting")
    async with open_bench(plan) as bench:
        keys = await bench.accounts(100)
        traffic = bench.payments(zipf(keys))
        with bench.held_still("processor", "notifier"):
            step("settle: making the backlog")
            async with bench.load(traffic).connected(plan.connections) as load:
                await load.closed(plan.seconds, None)
        step("settle: draining")
        async with bench.measured(looking=0.0) as window:
            counts = await _settled(bench, len(bench.tally.accepts))
    payments = len(bench.tally.accepts)
    # The first and the last second are not whole ones.
    inner = counts[1:-1] or counts
    ordered = sorted(inner)
    figures = bench.figures("settle", window, delivered=False)
    rates = Rates(ordered[len(ordered) // 2], ordered[0], ordered[-1], counts)
    cpu = window.cpu(payments)
    return [replace(figures, payments=payments, rates=rates, accept=None, cpu=cpu)]


async def hot(plan: Plan, step: Step) -> list[Figures]:
    """All payments on one account and one currency."""
    return [await _among(plan, step, "hot", 1)]


async def spread(plan: Plan, step: Step) -> list[Figures]:
    """Ten thousand accounts, each with an endpoint, all of them alike."""
    return [await _among(plan, step, "spread", 10_000)]


async def refunds(plan: Plan, step: Step) -> list[Figures]:
    """Three requests in ten refund a payment that was completed."""
    return [await _among(plan, step, "refunds", 1, refunds=0.3)]


async def duplicates(plan: Plan, step: Step) -> list[Figures]:
    """Two requests in ten repeat an earlier one, with its key."""
    return [await _among(plan, step, "duplicates", 1, repeats=0.2)]


async def webhooks(plan: Plan, step: Step) -> list[Figures]:
    """Beside the healthy endpoint, each event goes to a dead, a slow and a flapping one."""
    return [await _among(plan, step, "webhooks", 1, kinds=("dead", "slow", "flapping"))]


async def _among(
    plan: Plan,
    step: Step,
    name: str,
    accounts: int,
    *,
    kinds: Sequence[str] = (),
    refunds: float = 0.0,
    repeats: float = 0.0,
) -> Figures:
    """All that goes through, of so many accounts that are alike."""
    if accounts > 1:
        plan.require_private()
    step(f"{name}: starting")
    async with open_bench(plan) as bench:
        keys = await bench.accounts(accounts)
        step(f"{name}: making endpoints")
        await subscribe(bench.system.url, keys, bench.receiver)
        await add_endpoints(bench.system.url, keys[0], bench.receiver, kinds)
        step(f"{name}: all that goes through")
        traffic = bench.payments([Tenant(key) for key in keys], refunds=refunds, repeats=repeats)
        figures = await through(bench, traffic, name)
        step(f"{name}: verifying")
    return figures


async def growth(plan: Plan, step: Step) -> list[Figures]:
    """What a payment costs when there are ever more of them."""
    plan.require_private()
    found = []
    async with open_bench(plan) as bench:
        keys = await bench.accounts(100)
        await subscribe(bench.system.url, keys, bench.receiver)
        traffic = bench.payments(zipf(keys))
        for rows in GROWN:
            await _grow(bench, rows, lambda done: step(f"growth: {done:,} payments"))
            step(f"growth: at {rows:,} payments")
            found.append(await through(bench, traffic, f"growth {rows:,}"))
        step("growth: verifying")
    return found


async def _grow(bench: Bench, rows: int, step: Callable[[int], None]) -> None:
    """Fill the tables until there are so many payments."""
    database = await open_database(
        bench.own_database_url(), service="bench", size=1, wait=5, patient=True
    )
    try:
        there = len(bench.tally.accepts) + bench.filled
        while there < rows:
            number = min(FILLED_AT_ONCE, rows - there)
            await fill(database, bench.filled, number)
            bench.filled += number
            there += number
            step(there)
        await tidy(database)
    finally:
        await database.close()


async def overload(plan: Plan, step: Step) -> list[Figures]:
    """More is offered than goes through; when that is over, latency is as it was before."""
    step("overload: starting")
    async with open_bench(plan) as bench:
        keys = await bench.accounts(100)
        await subscribe(bench.system.url, keys, bench.receiver)
        traffic = bench.payments(zipf(keys))
        calm = plan.rate or CALM
        found = []
        for name, rate, connections in (
            ("before overload", calm, plan.connections),
            ("overload", OVERLOAD, CROWD),
            ("after overload", calm, plan.connections),
        ):
            step(f"{name}: {rate:,.0f}/s")
            found.append(await _offered(bench, traffic, name, rate, connections))
        step("overload: verifying")
    return found


async def _settled(bench: Bench, payments: int) -> list[int]:
    """Wait until so many are settled; how many were, second by second."""
    counts: list[int] = []
    done = 0
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        while done < payments:
            await asyncio.sleep(max(0.0, began + len(counts) + 1 - time.monotonic()))
            text = await read_metrics(bench.processes.of("processor"), "processor")
            now = int(total(text, "florin_settled_total"))
            counts.append(now - done)
            done = now
    return counts


SCENARIOS: Final[dict[str, Callable[[Plan, Step], Awaitable[list[Figures]]]]] = {
    scenario.__name__: scenario
    for scenario in (
        e2e, curve, accept, settle, hot, spread, refunds, duplicates, webhooks, growth, overload,
    )
}  # fmt: skip
