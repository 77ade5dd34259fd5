"""An HTTP proxy that passes requests on and loses some of the answers."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web


@dataclass
class BreakingProxy:
    """Answers to the next `lose` requests are lost after the server has given them."""

    url: str = ""
    lose: int = 0
    keys: list[str | None] = field(default_factory=list)
    """The Idempotency-Key of each request."""
    replayed: list[str | None] = field(default_factory=list)
    """What each answer said of being a replay."""


@contextlib.asynccontextmanager
async def open_breaking_proxy(target: str) -> AsyncIterator[BreakingProxy]:
    """A proxy before `target`, on a port of its own."""
    proxy = BreakingProxy()
    async with aiohttp.ClientSession() as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            proxy.keys.append(request.headers.get("Idempotency-Key"))
            body = await request.read()
            async with session.request(
                request.method, target + request.path_qs, data=body, headers=request.headers
            ) as answer:
                text = await answer.read()
            proxy.replayed.append(answer.headers.get("Idempotent-Replayed"))
            if proxy.lose > 0:
                proxy.lose -= 1
                assert request.transport is not None
                request.transport.abort()
            return web.Response(status=answer.status, body=text, headers=answer.headers)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://{host}:{port}"
        yield proxy
        await runner.cleanup()
