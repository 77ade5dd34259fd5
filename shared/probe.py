"""A small HTTP server for a service that has none: /ready and /metrics, on loopback by default."""

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.errors import Misconfigured
from shared.lifecycle import Lifecycle, Phase

Checks = Callable[[], dict[str, bool]]


@contextlib.asynccontextmanager
async def serve_probe(
    host: str, port: int, lifecycle: Lifecycle, checks: Checks
) -> AsyncIterator[None]:
    """Answer on `host:port` while the block runs; port 0 means no probe.

    GET /ready is 200 when the service is ready and every check holds, else 503; its body says
    which. GET /metrics is Prometheus text.
    """
    if port == 0:
        yield
        return

    async def ready(_: web.Request) -> web.Response:
        results = checks()
        good = lifecycle.phase is Phase.READY and all(results.values())
        return web.json_response(
            {"phase": lifecycle.phase, "checks": results}, status=200 if good else 503
        )

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another"
                " FLORIN_PROBE_PORT, or 0 for none"
            ) from None
        yield
    finally:
        await runner.cleanup()
