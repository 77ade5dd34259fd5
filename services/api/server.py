"""The listening socket: aiohttp's server, with our envelope for what is not even HTTP."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from services.api.codes import Code
from services.api.errors import invalid, respond
from services.api.gate import REQUEST_ID
from services.api.plain import Answering, Plain, read
from services.api.shedding import Shedder
from shared.errors import Misconfigured
from shared.ids import new_id

log = structlog.get_logger()

KEEP_ALIVE = 75.0
"""Seconds; aiohttp's own default is an hour."""


class _Protocol(web.RequestHandler):
    """Answers plain requests by itself, refuses unheard what comes while the process is late, and
    answers a request that could not be parsed as every other error is answered."""

    def __init__(
        self, *args: Any, shedder: Shedder, plain: Mapping[bytes, Answering], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._shedder = shedder
        self._plain = plain
        self._all_whole = True
        """Whether each read was one request, whole: then another begins with the next. One that was
        not is for ever: what comes after it may be a body that aiohttp has yet to skip."""
        self._answered = 0
        self._counts = False
        """Whether its request is one of those under way."""
        self._answering: asyncio.Task[None] | None = None
        """A plain request; what comes meanwhile is `_later`."""
        self._later = b""
        self._closes_then = False

    def data_received(self, data: bytes) -> None:
        """What the client has sent, nearly always one request, whole; nothing, where what was read
        before is to be looked at again."""
        if self._close or self._force_close:
            return  # an answer would be lost with the connection
        if not data:
            super().data_received(data)
            return
        if self._answering is not None:
            self._wait_with(data)
            return
        request = read(data) if self._all_whole else None
        self._all_whole = request is not None
        if request is not None and data.startswith(b"POST ") and self._is_idle():
            if self._shedder.refuses(time.monotonic()) and self.transport is not None:
                self._live_on()
                self.transport.write(self._shedder.refusal())
                return
            self._begin()
            answering = self._plain.get(request.line)
            if answering is not None:
                self._answering = self._loop.create_task(self._answer(answering, request))
                return
        super().data_received(data)

    async def _answer(self, answering: Answering, request: Plain) -> None:
        try:
            answer = await answering(request, self._address())
            if self.transport is not None:
                self.transport.write(answer)
        except Exception:
            log.exception("request_not_answered")
            self.force_close()
        except asyncio.CancelledError:
            self.force_close()  # the next answer would be taken for this one's
            raise
        finally:
            self._answering = None
            self._end()
            self._live_on()
            if self._closes_then:
                super().close()
            elif self._later:
                self._go_on()

    def _wait_with(self, data: bytes) -> None:
        """Keep what comes before an answer, and let nothing more come."""
        self._later += data
        if self.transport is not None:
            self.transport.pause_reading()

    def _go_on(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        later, self._later = self._later, b""
        self.transport.resume_reading()
        self.data_received(later)

    def _live_on(self) -> None:
        """Count the time for which an idle connection is kept from now."""
        self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE

    def _process_keepalive(self) -> None:
        """Close the connection if it is idle: aiohttp's timer, which knows of no plain request."""
        if self._answering is not None:
            self._live_on()
        super()._process_keepalive()

    def _address(self) -> str | None:
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        return None if peer is None else str(peer[0])

    def close(self) -> None:
        """Take no more requests: the service is stopping."""
        if self._answering is None:
            super().close()
        else:
            self._closes_then = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Finish what is under way, within `timeout` seconds."""
        if self._answering is not None:
            await asyncio.wait({self._answering}, timeout=timeout)
        await super().shutdown(timeout)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            self._end()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        if not self._counts:
            self._counts = True
            self._shedder.began()

    def _end(self) -> None:
        if self._counts:
            self._counts = False
            self._shedder.ended()

    def _is_idle(self) -> bool:
        """Whether aiohttp waits for a request: every one that was read was answered, with nothing
        left of its body, and the answers were taken. One who asks and does not listen must not
        fill the memory."""
        return (
            self._waiter is not None
            and not self._waiter.done()
            and self._request_count == self._answered
            and not self._paused
        )

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


@dataclass(frozen=True, slots=True)
class Site:
    """What is served. `plain` has how plain requests are answered, by method and target; all others
    are the application's."""

    app: web.Application
    plain: Mapping[bytes, Answering]


@contextlib.asynccontextmanager
async def listen(
    site: Site, host: str, port: int, drain_timeout: float, shedder: Shedder
) -> AsyncIterator[None]:
    """Serve while the block runs; then take no new connections and finish open requests."""
    runner = web.AppRunner(site.app, shutdown_timeout=drain_timeout)
    await runner.setup()
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None  # noqa: S101 - it was just set up

    def protocol() -> _Protocol:
        return _Protocol(
            server,
            shedder=shedder,
            plain=site.plain,
            loop=loop,
            access_log=None,
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
        try:
            yield
        finally:
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
