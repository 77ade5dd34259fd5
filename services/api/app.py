"""The API's wiring: everything it needs is built here, and closed in reverse order."""

import contextlib
import time
from collections.abc import AsyncIterator

from aiohttp import web

from services.api.accept import Acceptor
from services.api.auth import Authenticator
from services.api.config import ApiSettings, is_loopback
from services.api.context import CONTEXT, MAX_BODY, Context
from services.api.gate import make_gate
from services.api.rate_limit import RateLimiter
from services.api.routes import balance, charges, events, operations, payments, webhook_endpoints
from services.api.server import answer_expectation, listen
from services.api.store import has_keys
from shared.errors import Misconfigured
from shared.foundation import lay_foundation
from shared.lifecycle import App, Lifecycle

MOUNTS = ("/api/v1", "/v1")


def make_app(settings: ApiSettings) -> App:
    """The service as its lifecycle runs it."""

    @contextlib.asynccontextmanager
    async def app(lifecycle: Lifecycle) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            base = await stack.enter_async_context(lay_foundation("api", settings, lifecycle))
            if not is_loopback(settings.api_host) and not await has_keys(base.database):
                raise Misconfigured(
                    f"{settings.api_host} can be reached by others and there is no API key: make"
                    " one with `./florin keys create`"
                )
            acceptor = Acceptor(
                base.database, base.relay, settings.accept_batch, settings.accept_queue
            )
            stack.push_async_callback(acceptor.drain)
            context = Context(base.database, acceptor, base.publisher, lifecycle, time.monotonic())
            await stack.enter_async_context(
                listen(
                    make_web(settings, context),
                    settings.api_host,
                    settings.api_port,
                    settings.drain_timeout,
                )
            )
            yield

    return app


def make_web(settings: ApiSettings, context: Context) -> web.Application:
    """The routes and the gate before them."""
    authenticator = Authenticator(context.database, local=settings.auth == "local")
    limiter = RateLimiter(settings.rate_limit, settings.rate_burst)
    app = web.Application(middlewares=[make_gate(authenticator, limiter)], client_max_size=MAX_BODY)
    app[CONTEXT] = context
    routes = operations.routes("")
    for mount in MOUNTS:
        for resource in (operations, payments, charges, events, balance, webhook_endpoints):
            routes += resource.routes(mount)
    for route in routes:
        route.kwargs["expect_handler"] = answer_expectation
    app.add_routes(routes)
    return app
