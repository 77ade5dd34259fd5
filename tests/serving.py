"""The API's socket before an application whose answers wait to be allowed, and clients that write
what they like."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from services.api.congestion import Congestion
from services.api.gate import REQUEST_ID
from services.api.plain import answering
from services.api.server import Site, _Protocol, listen
from services.api.shedding import Shedder

HEAD = b"POST /v1/charges HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
WHOLE = HEAD + b"\r\n{}"
Reads = asyncio.Queue[tuple[_Protocol, bytes]]
"""What the server has read, and on which connection."""


class Merchant:
    """A client that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 5)).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers["Content-Length"]))
        return int(first.split()[1]), headers, body

    async def end(self) -> bytes:
        """What comes until the server hangs up."""
        return await asyncio.wait_for(self._reader.read(), 5)


class Server:
    """What is behind the socket: it answers with the body, when it may."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heard: list[str] = []
        self.bodies: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.begun = asyncio.Event()
        self.answered = asyncio.Event()
        self.fault: BaseException | None = None
        self.merchants: list[Merchant] = []

    async def handle(self, request: web.Request) -> web.Response:
        request[REQUEST_ID] = "req_x"
        self.heard.append(request.method)
        if request.path == "/unread":
            return web.Response(status=401, text="before the body")
        self.bodies.append(await request.read())
        self.begun.set()
        if request.method == "POST":
            await self.may_answer.wait()
        self.answered.set()
        return web.Response(
            status=202,
            body=self.bodies[-1],
            headers={"Content-Type": "text/plain", "Location": "/x", "X-Way": request.path},
        )

    async def dress(self, _: web.Request, response: web.StreamResponse) -> None:
        if self.fault is not None:
            raise self.fault
        response.headers["Server"] = "florin"

    async def connect(self) -> Merchant:
        merchant = Merchant(*await asyncio.open_connection("127.0.0.1", self._port))
        self.merchants.append(merchant)
        return merchant


@web.middleware
async def _open_gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


@contextlib.asynccontextmanager
async def serving(
    port: int, *, at_once: int, plain: bool, drain_timeout: float = 1
) -> AsyncIterator[Server]:
    """A server that lets so many requests be under way; charges come plain, if `plain`."""
    it = Server(port)
    app = web.Application()
    app.on_response_prepare.append(it.dress)
    app.router.add_route("*", "/{path:.*}", it.handle)
    charges = answering(app, _open_gate, it.dress, it.handle)
    site = Site(app, {b"POST /v1/charges": charges} if plain else {})
    shedder = Shedder(Congestion(60), at_once)
    async with listen(site, "127.0.0.1", port, drain_timeout, shedder):
        yield it
        for merchant in it.merchants:
            merchant.writer.close()


def watched_reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """See what servers read from now on."""
    queue: Reads = asyncio.Queue()
    original = _Protocol.data_received

    def data_received(self: _Protocol, data: bytes) -> None:
        original(self, data)
        if data:
            queue.put_nowait((self, data))

    monkeypatch.setattr(_Protocol, "data_received", data_received)
    return queue
