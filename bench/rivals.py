"""Florin beside what a Python team would otherwise build, and beside the database's own measure.

Interleaved: each round measures every one of them, on one account, with the same load, the same
receiver and the same settings of Postgres and RabbitMQ; ratios are of one round.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.bed import Bench, verify_database
from bench.figures import Figures, Plan
from bench.peer.check import check
from bench.peer.system import VARIANTS, Variant, peer_system
from bench.processes import Processes
from bench.receiver import open_receiver
from bench.run import progress
from bench.scenarios import WARM_UP, Step, through
from bench.system import private_system, run_to_its_end
from bench.tenants import make_accounts, subscribe
from bench.traffic import Tenant
from bench.yardstick.pgbench import run_pgbench

FLORIN: Final = "florin"
RIVALS: Final = (FLORIN, *VARIANTS)


@dataclass(frozen=True, slots=True)
class Result:
    """What one of them came to in one round."""

    e2e: Figures
    accept: Figures


@dataclass(frozen=True, slots=True)
class Round:
    """All of them, one after the other."""

    results: dict[str, Result]
    pgbench: float
    """Payments a second of the database alone, row by row."""


def run(plan: Plan, rounds: int, file: Path | None, console: Console) -> None:
    """Measure, and print each round's ratios. Raises Broken, Lost and Misconfigured."""
    found = run_to_its_end(_measure(plan, rounds, console))
    console.print(_table(found))
    console.print(_ratios(found))
    if file is not None:
        stored = [{"pgbench": one.pgbench, **_stored(one)} for one in found]
        file.write_text(json.dumps({"rounds": stored}, indent=2) + "\n")


async def _measure(plan: Plan, rounds: int, console: Console) -> list[Round]:
    found = []
    with progress(console) as shown:
        task = shown.add_task("", total=rounds * (len(RIVALS) + 1))

        def step(text: str) -> None:
            shown.update(task, description=text)

        for number in range(1, rounds + 1):
            results = {}
            # Each goes first in turn.
            for name in (*RIVALS[number % len(RIVALS) :], *RIVALS[: number % len(RIVALS)]):
                results[name] = await _measure_one(name, plan, step, f"round {number}, {name}")
                shown.advance(task)
            step(f"round {number}, pgbench")
            found.append(Round(results, await _yardstick(plan)))
            shown.advance(task)
    return found


async def _measure_one(name: str, plan: Plan, step: Step, title: str) -> Result:
    """End to end, checked; then accepting alone, while nothing settles."""
    step(f"{title}: starting")
    system_of = private_system() if name == FLORIN else peer_system(_variant(name), step)
    async with open_receiver() as receiver, system_of as system:
        bench = Bench(system, Processes(system.pid), receiver, plan)
        receiver.on_event = bench.hear
        await subscribe(system.url, [system.key], receiver)
        traffic = bench.payments([Tenant(system.key)])
        step(f"{title}: end to end")
        e2e = await through(bench, traffic, name, services=())
        database_url = bench.own_database_url()
        if name == FLORIN:
            await verify_database(database_url)
        else:
            await check(database_url, accepted=len(bench.tally.accepts) - bench.tally.repeats)
        step(f"{title}: accepting")
        held = ("processor", "notifier") if name == FLORIN else ("processor",)
        with bench.held_still(*held):
            async with bench.load(traffic).connected(plan.connections) as load:
                await load.closed(WARM_UP, None)
                running = asyncio.create_task(load.closed(plan.seconds, None))
                async with bench.measured(()) as window:
                    await asyncio.sleep(plan.seconds)
                await running
        receiver.end()
    return Result(e2e, bench.figures(f"{name}, accept", window, delivered=False))


def _variant(name: str) -> Variant:
    return "orm" if name == "orm" else "core"


async def _yardstick(plan: Plan) -> float:
    async with open_receiver() as receiver, private_system() as system:
        assert system.database_url is not None  # noqa: S101 - a private one has one
        keys = await make_accounts(system.database_url, 100)
        await subscribe(system.url, keys, receiver)
        found = await run_pgbench(system.database_url, plan.seconds)
        await verify_database(system.database_url)
    return found


def _stored(one: Round) -> dict[str, object]:
    return {name: asdict(result) for name, result in one.results.items()}


def _table(found: Sequence[Round]) -> Table:
    shown = Table(title="payments a second", box=None, padding=(0, 2), header_style="bold")
    shown.add_column("round", justify="right")
    for name in ("florin", "peer, ORM", "peer, Core", "pgbench"):
        shown.add_column(name, justify="right")
    for name in ("accept: florin", "peer, ORM", "peer, Core"):
        shown.add_column(name, justify="right")
    for number, one in enumerate(found, 1):
        shown.add_row(
            str(number),
            *(f"{one.results[name].e2e.rates.median:,.0f}" for name in RIVALS),
            f"{one.pgbench:,.0f}",
            *(f"{one.results[name].accept.rates.median:,.0f}" for name in RIVALS),
        )
    return shown


def ratios(one: Round) -> dict[str, float]:
    """Florin ÷ each of the others, in one round."""
    mine = one.results[FLORIN]
    found = {"e2e ÷ pgbench": mine.e2e.rates.median / one.pgbench}
    for name in VARIANTS:
        other = one.results[name]
        found[f"e2e ÷ peer, {name}"] = mine.e2e.rates.median / max(1, other.e2e.rates.median)
        found[f"accept ÷ peer, {name}"] = mine.accept.rates.median / max(
            1, other.accept.rates.median
        )
        found[f"CPU of peer, {name} ÷ florin"] = other.e2e.cpu_total / mine.e2e.cpu_total
    return found


def _ratios(found: Sequence[Round]) -> Table:
    shown = Table(title="ratios, by round", box=None, padding=(0, 2), header_style="bold")
    shown.add_column("")
    for number in range(1, len(found) + 1):
        shown.add_column(str(number), justify="right")
    shown.add_column("median", justify="right")
    by_round = [ratios(one) for one in found]
    for name in by_round[0]:
        values = [one[name] for one in by_round]
        shown.add_row(name, *(f"{value:.1f}" for value in values), f"{median(values):.1f}")
    return shown
