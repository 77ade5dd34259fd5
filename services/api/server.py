"""The listening socket: aiohttp's server, with our envelope for what is not even HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from aiohttp import web

from services.api.codes import Code
from services.api.errors import invalid, respond
from services.api.gate import REQUEST_ID
from shared.errors import Misconfigured
from shared.ids import new_id

log = structlog.get_logger()

KEEP_ALIVE = 75.0
"""Seconds; aiohttp's own default is an hour."""


class _Protocol(web.RequestHandler):
    """Answers a request that could not be parsed as every other error is answered."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A 400 without an echo of what was sent."""
        request_id = new_id("req")
        log.info("request_not_http", request_id=request_id, status=status, fault=type(exc).__name__)
        problem = invalid(
            Code.REQUEST_MALFORMED, "The request is not valid HTTP/1.1.", None, max(status, 400)
        )
        response = respond(problem, request_id)
        response.headers["Request-Id"] = request_id
        response.headers["Server"] = "florin"
        response.force_close()
        return response


@contextlib.asynccontextmanager
async def listen(
    app: web.Application, host: str, port: int, drain_timeout: float
) -> AsyncIterator[None]:
    """Serve while the block runs; then take no new connections and finish open requests."""
    runner = web.AppRunner(app, shutdown_timeout=drain_timeout)
    await runner.setup()
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None  # noqa: S101 - it was just set up

    def protocol() -> _Protocol:
        return _Protocol(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            keepalive_timeout=KEEP_ALIVE,
            auto_decompress=False,
        )

    try:
        try:
            listening = await loop.create_server(protocol, host, port, backlog=1024)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {host}:{port} ({error.strerror}); another program may use the"
                " port: choose another FLORIN_API_PORT"
            ) from None
        yield
        listening.close()
    finally:
        await runner.cleanup()


async def answer_expectation(request: web.Request) -> web.StreamResponse | None:
    """`Expect: 100-continue` is met; anything else is refused (RFC 9110 §10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper is still to come
        return None
    request_id = request[REQUEST_ID] = new_id("req")
    problem = invalid(Code.EXPECTATION_FAILED, "Only `Expect: 100-continue` is met.", None, 417)
    return respond(problem, request_id)
