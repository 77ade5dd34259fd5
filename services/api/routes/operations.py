"""/health, /ready and /metrics: for people, load balancers and Prometheus. No key, no limit."""

import platform
import resource
import time
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.api import store
from services.api.context import CONTEXT, answer
from shared.errors import Transient
from shared.lifecycle import Phase
from shared.states import PaymentStatus
from shared.store import outbox_age
from shared.version import VERSION


async def health(request: web.Request) -> web.Response:
    """200 while the process lives, with what a person wants to know first.

    `payments` is null while Postgres is away: that is /ready's to judge.
    """
    context = request.app[CONTEXT]
    payments: dict[PaymentStatus, int] | None
    try:
        counts = await store.count_payments(context.database, None)
        payments = dict.fromkeys(PaymentStatus, 0)
        for _, status, count, _ in counts:
            payments[PaymentStatus(status)] += count
    except Transient:
        payments = None
    return answer(
        {
            "status": "ok",
            "service": "api",
            "phase": context.lifecycle.phase,
            "uptime_seconds": round(time.monotonic() - context.started_at, 3),
            "memory_bytes": _memory_bytes(),
            "versions": {"florin": VERSION, "python": platform.python_version()},
            "payments": payments,
        }
    )


async def ready(request: web.Request) -> web.Response:
    """200 when payments can be accepted, else 503.

    Accepting needs Postgres alone: with RabbitMQ away the API stays ready, says so, and the age of
    the outbox grows.
    """
    context = request.app[CONTEXT]
    age: float | None
    try:
        age = round(await outbox_age(context.database), 3)
    except Transient:
        age = None
    is_ready = context.lifecycle.phase is Phase.READY and age is not None
    return answer(
        {
            "ready": is_ready,
            "phase": context.lifecycle.phase,
            "checks": {"postgres": age is not None, "rabbitmq": context.publisher.connected},
            "outbox_age_seconds": age,
        },
        status=200 if is_ready else 503,
        headers=None if is_ready else {"Retry-After": "2"},
    )


async def metrics(_: web.Request) -> web.Response:
    """Prometheus text."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _memory_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes under `prefix`: at the root, where probes look, and beside the resources."""
    return [
        web.get(f"{prefix}/health", health),
        web.get(f"{prefix}/ready", ready),
        web.get(f"{prefix}/metrics", metrics),
    ]
