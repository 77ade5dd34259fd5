"""What a healthy endpoint has to bear from its neighbours: latency alone, and beside bad ones.

Payments are made at a steady rate. What is measured is the time from when the commit that settled a
payment began, by the database's clock, to the moment at which the healthy endpoint heard of it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.receiver import headers_of, open_receiver
from bench.store import settled_at
from bench.system import System, private_system, run_to_its_end
from bench.tally import Percentiles, percentiles
from shared.db import open_database

BAD = ("dead", "slow", "flapping")
PATIENCE = 120.0
"""Seconds that the healthy endpoint may take to hear the rest, when all payments are made."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the same payments twice, the healthy endpoint alone and then among bad ones."""

    alone: Percentiles
    among: Percentiles
    sent: dict[str, int]
    """Requests that each endpoint got among the others."""

    @property
    def ratio(self) -> float:
        """How much longer the slowest hundredth waits among bad neighbours."""
        return self.among.p99 / self.alone.p99


class Heard:
    """When the healthy endpoint first heard of each event: wall-clock seconds, by its id."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._news = asyncio.Event()

    def hear(self, head: bytes, _: bytes, now: float) -> None:
        """It heard of one."""
        self.at.setdefault(headers_of(head)[b"webhook-id"].decode(), now)
        self._news.set()

    async def wait_for(self, number: int, timeout: float) -> None:
        """Until it has heard of so many. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while len(self.at) < number:
                self._news.clear()
                await self._news.wait()


async def measure(
    events: int, rate: float, rounds: int, step: Callable[[str, int], None]
) -> list[Round]:
    """Measure `rounds` times `events` payments at `rate` a second; `step` hears of progress."""
    found = []
    for number in range(1, rounds + 1):
        alone, _ = await _run(events, rate, (), partial(step, f"round {number}, alone"))
        name = f"round {number}, among bad ones"
        among, sent = await _run(events, rate, BAD, partial(step, name))
        found.append(Round(alone, among, sent))
    return found


async def _run(
    events: int, rate: float, neighbours: Sequence[str], step: Callable[[int], None]
) -> tuple[Percentiles, dict[str, int]]:
    """One private system, and `events` payments through it."""
    async with open_receiver() as receiver, private_system() as system:
        heard = Heard()
        receiver.on_event = heard.hear
        async with aiohttp.ClientSession(system.url) as http:
            for name in ("healthy", *neighbours):
                body = {"url": f"{receiver.url}/{name}", "enabled_events": ["payment.completed"]}
                async with http.post("/v1/webhook_endpoints", json=body) as response:
                    response.raise_for_status()
            await _pay(http, events, rate, step)
        await heard.wait_for(events, PATIENCE)
        latencies = await _latencies(system, heard)
        sent = dict(receiver.requests)
        receiver.end()
    found = percentiles(latencies)
    assert found is not None  # noqa: S101 - there is at least one event
    return found, sent


async def _pay(
    http: aiohttp.ClientSession, payments: int, rate: float, step: Callable[[int], None]
) -> None:
    """Make payments at a steady rate, each when it is due, however long others take."""
    started = time.monotonic()
    tasks = []
    for number in range(payments):
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(_pay_once(http)))
        step(number + 1)
    await asyncio.gather(*tasks)


async def _pay_once(http: aiohttp.ClientSession) -> None:
    body = {"user_id": "bench", "amount": 10, "currency": "THB"}
    async with http.post("/api/v1/payments", json=body) as response:
        response.raise_for_status()


async def _latencies(system: System, heard: Heard) -> list[float]:
    assert system.database_url is not None  # noqa: S101 - it is a private one
    database = await open_database(system.database_url, service="bench", size=1, wait=5)
    try:
        settled = await settled_at(database, list(heard.at))
    finally:
        await database.close()
    return [at - settled[id_] for id_, at in heard.at.items()]


def as_json(rounds: Sequence[Round]) -> dict[str, object]:
    """The figures, for a file."""
    return {
        "scenario": "isolation",
        "rounds": [{**asdict(found), "ratio": round(found.ratio, 3)} for found in rounds],
        "median_ratio": round(median([found.ratio for found in rounds]), 3),
    }


def rows(found: Sequence[Round]) -> list[tuple[str, ...]]:
    """The figures, for a table."""
    lines = []
    for number, one in enumerate(found, 1):
        for name, latency in (("alone", one.alone), ("among", one.among)):
            figures = (latency.p50, latency.p90, latency.p99, latency.max)
            ratio = f"{one.ratio:.2f}" if name == "among" else ""
            lines.append((str(number), name, *(f"{figure:,.1f}" for figure in figures), ratio))
    return lines


def run(events: int, rate: float, rounds: int, file: Path | None) -> None:
    """Measure, and print a table."""
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("starting", total=events)
        found = run_to_its_end(
            measure(
                events,
                rate,
                rounds,
                lambda name, done: progress.update(task, description=name, completed=done),
            )
        )
    table = Table(
        title=f"milliseconds from settled to received, {events:,} events at {rate:g}/s",
        box=None,
        padding=(0, 2),
        header_style="bold",
    )
    for name in ("round", "healthy endpoint", "p50", "p90", "p99", "max", "p99 among ÷ alone"):
        table.add_column(name, justify="left" if name == "healthy endpoint" else "right")
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    others = ", ".join(f"{name} {found[-1].sent[name]:,}" for name in BAD)
    console.print(f"requests to the bad ones in the last round: {others}")
    console.print(f"median ratio: {median([one.ratio for one in found]):.2f}")
    if file is not None:
        file.write_text(json.dumps(as_json(found), indent=2) + "\n")
