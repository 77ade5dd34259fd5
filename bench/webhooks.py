"""What a healthy endpoint has to bear from its neighbours: latency alone, and beside bad ones.

Payments are made at a steady rate. What is measured is the time from when the commit that settled a
payment began, by the database's clock, to the moment at which the healthy endpoint heard of it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import aiohttp

from bench.receiver import Receiver, open_receiver
from bench.store import settled_at
from bench.system import System, private_system
from shared.db import open_database

BAD = ("dead", "slow", "flapping")
PATIENCE = 120.0
"""Seconds that the healthy endpoint may take to hear the rest, when all payments are made."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from settled to received."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the same payments twice, the healthy endpoint alone and then among bad ones."""

    alone: Latency
    among: Latency
    sent: dict[str, int]
    """Requests that each endpoint got among the others."""

    @property
    def ratio(self) -> float:
        """How much longer the slowest hundredth waits among bad neighbours."""
        return self.among.p99 / self.alone.p99


def percentiles(seconds: Sequence[float]) -> Latency:
    """Of latencies in seconds, in milliseconds. Nearest rank, as all are known."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return Latency(at(0.5), at(0.9), at(0.99), round(1000 * ordered[-1], 1))


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
) -> tuple[Latency, dict[str, int]]:
    """One private system, and `events` payments through it."""
    async with open_receiver() as receiver, private_system() as system:
        async with aiohttp.ClientSession(system.url) as http:
            for name in ("healthy", *neighbours):
                body = {"url": f"{receiver.url}/{name}", "enabled_events": ["payment.completed"]}
                async with http.post("/v1/webhook_endpoints", json=body) as response:
                    response.raise_for_status()
            await _pay(http, events, rate, step)
        await receiver.heard(events, PATIENCE)
        latencies = await _latencies(system, receiver)
        sent = dict(receiver.requests)
        receiver.end()
    return percentiles(latencies), sent


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


async def _latencies(system: System, receiver: Receiver) -> list[float]:
    database = await open_database(system.database_url, service="bench", size=1, wait=5)
    try:
        settled = await settled_at(database, list(receiver.heard_at))
    finally:
        await database.close()
    return [heard - settled[id_] for id_, heard in receiver.heard_at.items()]


def as_json(rounds: Sequence[Round]) -> dict[str, object]:
    """The figures, for a file."""
    return {
        "scenario": "webhooks",
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
