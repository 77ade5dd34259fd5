"""The yardstick of the API: aiohttp as its documentation begins, with one route and no work.

Run as a process of its own: `python -m bench.hello`; it prints its URL.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import web

from bench.system import ROOT, System

_ANSWER = b'{"payment_id":"none"}'


async def hello(request: web.Request) -> web.Response:
    """Reads the body, and answers always the same."""
    await request.read()
    return web.Response(body=_ANSWER, content_type="application/json", status=202)


async def _serve() -> None:
    app = web.Application()
    app.router.add_post("/api/v1/payments", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def hello_system() -> AsyncIterator[System]:
    """The yardstick, running, in the place of a system."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.hello", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        url = (await process.stdout.readline()).decode().strip()
        yield System(url, None, "sk_none", process.pid)
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())
