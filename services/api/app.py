"""The API's wiring: everything it needs is built here, and closed in reverse order."""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from services.api import documentation
from services.api.accept import Acceptor
from services.api.auth import Authenticator
from services.api.config import ApiSettings, is_loopback
from services.api.congestion import Congestion
from services.api.context import CONTEXT, MAX_BODY, Context
from services.api.gate import MOUNTS, make_dresser, make_gate
from services.api.once import forget_old_answers
from services.api.openapi import describe
from services.api.plain import answering
from services.api.rate_limit import RateLimiter
from services.api.reserve import Reserver
from services.api.routes import OPERATIONS, PROBES
from services.api.server import Site, answer_expectation, listen
from services.api.shedding import Shedder
from services.api.store.keys import has_keys
from shared.errors import Misconfigured
from shared.foundation import lay_foundation
from shared.lifecycle import App, Lifecycle
from shared.repeat import Repeating
from shared.sealing import Seal

REAP_INTERVAL: Final = 60.0
"""Seconds between looks for answers that need no longer be kept."""


def make_app(settings: ApiSettings) -> App:
    """The service as its lifecycle runs it."""

    @contextlib.asynccontextmanager
    async def app(lifecycle: Lifecycle) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            base = await stack.enter_async_context(lay_foundation("api", settings, lifecycle))
            if not is_loopback(settings.reached_at) and not await has_keys(base.database):
                raise Misconfigured(
                    f"{settings.reached_at} can be reached by others and there is no API key: make"
                    " one with `./florin keys create`"
                )
            acceptor = Acceptor(
                base.database, base.relay, settings.accept_batch, settings.accept_queue
            )
            reserver = Reserver(
                base.database, base.relay, settings.accept_batch, settings.accept_queue
            )
            stack.push_async_callback(acceptor.drain)
            stack.push_async_callback(reserver.drain)
            context = Context(
                base.database,
                acceptor,
                reserver,
                base.publisher,
                Seal(settings.sealing_keys),
                lifecycle,
                time.monotonic(),
            )
            reaper = Repeating(
                "answers reaper",
                lambda: forget_old_answers(base.database, settings.idempotency_retention),
                REAP_INTERVAL,
            )
            congestion = Congestion(settings.refuse_above)
            await stack.enter_async_context(
                lifecycle.running(
                    settings.drain_timeout, answers_reaper=reaper, congestion=congestion
                )
            )
            await stack.enter_async_context(
                listen(
                    make_web(settings, context, congestion),
                    settings.api_host,
                    settings.api_port,
                    settings.drain_timeout,
                    Shedder(congestion, settings.accept_queue),
                )
            )
            yield

    return app


def make_web(settings: ApiSettings, context: Context, congestion: Congestion) -> Site:
    """The routes and the gate before them."""
    mounted = [(op, op.path) for op in PROBES]
    mounted += [(op, mount + op.path) for mount in MOUNTS for op in (*PROBES, *OPERATIONS)]
    probes = {path for op, path in mounted if op.open}
    limiter = RateLimiter(settings.rate_limit, settings.rate_burst)
    gate = make_gate(
        Authenticator(context.database, local=settings.auth == "local"),
        limiter,
        congestion,
        probes=frozenset(probes),
        pages=frozenset(documentation.PATHS),
    )
    app = web.Application(middlewares=[gate], client_max_size=MAX_BODY)
    dress = make_dresser(limiter)
    app.on_response_prepare.append(dress)
    app[CONTEXT] = context
    routes = [(op.method, path, op.handler) for op, path in mounted]
    spec = describe((*OPERATIONS, *PROBES))
    routes += [("GET", path, handler) for path, handler in documentation.routes(spec)]
    # By path: the methods of one path then share a resource, and are found by one look.
    for method, path, handler in sorted(routes, key=lambda route: route[1]):
        app.router.add_route(method, path, handler, expect_handler=answer_expectation)
    plain = {
        f"{op.method} {path}".encode(): answering(app, gate, dress, op.handler)
        for op, path in mounted
        if op.plain
    }
    return Site(app, plain)
