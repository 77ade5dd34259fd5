"""/health, /ready and /metrics: for people, load balancers and Prometheus. No key, no limit."""

import asyncio
import platform
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.api.context import CONTEXT, answer
from services.api.objects import Health, Ready
from services.api.operation import Operation
from services.api.store.counts import Count, find_counts
from shared.db import Database
from shared.errors import Transient
from shared.lifecycle import Phase
from shared.states import PaymentStatus
from shared.store import outbox_age
from shared.version import VERSION

log = structlog.get_logger()

PATIENCE: Final = 1.0
"""Seconds that a probe waits for Postgres."""
_OUTCOMES: Final = ("completed", "failed")


async def health(request: web.Request) -> web.Response:
    """200 while the process lives, with what a person wants to know first.

    `payments` is null while Postgres is away: that is /ready's to judge.
    """
    context = request.app[CONTEXT]
    payments: dict[str, int] | None
    try:
        counts = await _counts(context.database)
        payments = dict.fromkeys(PaymentStatus, 0)
        for count in counts:
            if count.object == "payment":
                payments[count.status] += count.number
    except Transient:
        payments = None
    shown: Health = {
        "status": "ok",
        "service": "api",
        "phase": context.lifecycle.phase,
        "uptime_seconds": round(time.monotonic() - context.started_at, 3),
        "memory_bytes": _memory_bytes(),
        "versions": {"florin": VERSION, "python": platform.python_version()},
        "payments": payments,
    }
    return answer(shown)


async def ready(request: web.Request) -> web.Response:
    """200 when payments can be accepted, else 503.

    Accepting needs Postgres alone: with RabbitMQ away the API stays ready, says so, and the age of
    the outbox grows.
    """
    context = request.app[CONTEXT]
    age: float | None
    try:
        async with asyncio.timeout(PATIENCE):
            age = round(await outbox_age(context.database), 3)
    except (Transient, TimeoutError):
        age = None
    is_ready = context.lifecycle.phase is Phase.READY and age is not None
    shown: Ready = {
        "ready": is_ready,
        "phase": context.lifecycle.phase,
        "checks": {"postgres": age is not None, "rabbitmq": context.publisher.connected},
        "outbox_age_seconds": age,
    }
    return answer(
        shown,
        status=200 if is_ready else 503,
        headers=None if is_ready else {"Retry-After": "2"},
    )


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text: what this process counts, and what Postgres has counted for all of them.

    The second part is exact and outlives restarts, and is left out while Postgres is away; every
    API shows the same, so take the maximum over them.
    """
    text = generate_latest()
    try:
        text += totals_text(await _counts(request.app[CONTEXT].database)).encode()
    except Transient as error:
        log.warning("metrics_without_totals", reason=str(error))
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _counts(database: Database) -> list[Count]:
    """The counts, or Transient: who asks how we are must not wait for Postgres."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await find_counts(database, None)
    except TimeoutError:
        raise Transient(f"no counts within {PATIENCE:g} s") from None


_TOTALS: Final = {
    "payment": ("florin_charges", "Charges and payments with an outcome.", _OUTCOMES),
    "refund": ("florin_refunds", "Refunds with an outcome.", _OUTCOMES),
    "webhook": (
        "florin_webhooks",
        "Attempts at delivering webhooks, by what came of them.",
        ("delivered", "retrying", "dead"),
    ),
}


def totals_text(counts: Sequence[Count]) -> str:
    """Counters of all processes together, by outcome, as Prometheus text."""
    lines = []
    for kind, (name, about, outcomes) in _TOTALS.items():
        lines += [f"# HELP {name}_total {about}", f"# TYPE {name}_total counter"]
        lines += [
            f'{name}_total{{outcome="{outcome}"}} '
            + str(sum(c.number for c in counts if (c.object, c.status) == (kind, outcome)))
            for outcome in outcomes
        ]
    return "\n".join(lines) + "\n"


def _memory_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


OPERATIONS: Final = (
    Operation("GET", "/health", health, Health, open=True),
    Operation("GET", "/ready", ready, Ready, open=True),
    Operation("GET", "/metrics", metrics, None, open=True),
)
