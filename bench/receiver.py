"""Merchants' servers of four kinds, on loopback: healthy, dead, slow and flapping."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

SLOW: Final = 10.0
"""Seconds that the slow one takes to answer."""
FLAPS: Final = 5.0
"""Seconds for which the flapping one is well, and then is not."""


class Receiver:
    """What arrived at each, and when."""

    def __init__(self) -> None:
        self.url = ""
        self.heard_at: dict[str, float] = {}
        """Wall-clock seconds at which the healthy one first heard each event, by its id."""
        self.requests = {"healthy": 0, "dead": 0, "slow": 0, "flapping": 0}
        self._news = asyncio.Event()
        self._ending = asyncio.Event()

    async def heard(self, number: int, timeout: float) -> None:
        """Wait until the healthy one has heard so many. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while len(self.heard_at) < number:
                self._news.clear()
                await self._news.wait()

    def end(self) -> None:
        """Let the dead and the slow answer, so that nobody waits for them."""
        self._ending.set()

    async def healthy(self, request: web.Request) -> web.Response:
        """Answers at once."""
        now = time.time()
        self.requests["healthy"] += 1
        self.heard_at.setdefault(request.headers["webhook-id"], now)
        self._news.set()
        await request.read()
        return web.Response()

    async def dead(self, _: web.Request) -> web.Response:
        """Never answers."""
        self.requests["dead"] += 1
        await self._ending.wait()
        return web.Response(status=503)

    async def slow(self, _: web.Request) -> web.Response:
        """Answers after ten seconds."""
        self.requests["slow"] += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SLOW):
                await self._ending.wait()
        return web.Response()

    async def flapping(self, _: web.Request) -> web.Response:
        """Is well for some seconds, and then is not."""
        self.requests["flapping"] += 1
        well = int(time.monotonic() / FLAPS) % 2 == 0
        return web.Response(status=200 if well else 500)


@contextlib.asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """The four of them on one free port of loopback, each at a path of its name."""
    receiver = Receiver()
    app = web.Application()
    for name in receiver.requests:
        app.router.add_post(f"/{name}", getattr(receiver, name))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.end()
        await runner.cleanup()
