"""What is refused unheard, and how."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from services.api.congestion import Congestion
from services.api.errors import respond, saturated
from services.api.gate import REQUEST_ID
from services.api.server import _Protocol, listen
from services.api.shedding import LONGEST, Shedder, is_whole

HEAD = b"POST /v1/charges HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
WHOLE = HEAD + b"\r\n{}"


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (WHOLE, True),
        (HEAD + b"Connection: keep-alive\r\n\r\n{}", True),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET /v1/charges HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nCONTENT-LENGTH:0\r\n\r\n", True),
        (b"", False),
        (HEAD, False),
        (WHOLE[:-1], False),
        (WHOLE + b"P", False),
        (WHOLE + WHOLE, False),
        (b"POST / HTTP/1.0\r\nHost: x\r\n\r\n", False),
        (HEAD + b"Connection: close\r\n\r\n{}", False),
        (HEAD + b"Connection: keep-alive, Upgrade\r\n\r\n{}", False),
        (HEAD + b"Expect: 100-continue\r\n\r\n{}", False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n{}", False),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", False),
        (HEAD + b"Content-Length : 2\r\n\r\n{}", False),
        (b"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}", False),
        (b"POST / HTTP/1.1\r\nX: y\nContent-Length: 2\r\n\r\n{}", False),
        (b"POST / HTTP/1.1\r\nX: " + b"y" * LONGEST + b"\r\n\r\n", False),
    ],
)
def test_a_request_is_whole_only_beyond_doubt(data: bytes, whole: bool) -> None:
    assert is_whole(data) is whole


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


class Server:
    """The API's socket, before an application whose answers wait to be allowed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heard: list[str] = []
        self.may_answer = asyncio.Event()
        self.begun = asyncio.Event()
        self.merchants: list[Merchant] = []

    async def handle(self, request: web.Request) -> web.Response:
        request[REQUEST_ID] = "req_x"
        self.heard.append(request.method)
        self.begun.set()
        if request.method == "POST":
            await self.may_answer.wait()
        return web.Response(text="heard")

    async def connect(self) -> Merchant:
        merchant = Merchant(*await asyncio.open_connection("127.0.0.1", self._port))
        self.merchants.append(merchant)
        return merchant


async def busy(server: Server) -> tuple[Merchant, Merchant]:
    """Who has a request under way, and who is to wait."""
    first, second = await server.connect(), await server.connect()
    first.send(WHOLE)
    await server.begun.wait()
    return first, second


@pytest.fixture
async def server(unused_tcp_port: int) -> AsyncIterator[Server]:
    """A server that lets one request be under way."""
    it = Server(unused_tcp_port)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", it.handle)
    async with listen(app, "127.0.0.1", unused_tcp_port, 1, Shedder(Congestion(60), 1)):
        yield it
        for merchant in it.merchants:
            merchant.writer.close()


async def test_what_is_too_much_is_refused_unheard_and_what_comes_later_is_heard(
    server: Server,
) -> None:
    first, second = await busy(server)
    second.send(WHOLE)
    status, headers, body = await second.answer()
    assert (status, server.heard) == (503, ["POST"])
    gates = respond(saturated(), headers["Request-Id"])
    assert {name: headers[name] for name in gates.headers} == dict(gates.headers)
    assert isinstance(gates.body, bytes)
    assert json.loads(body) == json.loads(gates.body)
    assert headers["Retry-After"] == "1"

    server.may_answer.set()
    assert (await first.answer())[0] == 200
    second.send(WHOLE)
    assert (await second.answer())[0] == 200


async def test_what_only_asks_is_heard_however_much_is_under_way(server: Server) -> None:
    _, second = await busy(server)
    second.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await second.answer())[0] == 200


async def test_answers_stay_in_the_order_of_requests(server: Server) -> None:
    merchant, other = await busy(server)
    merchant.send(WHOLE)  # before the first is answered: a refusal would overtake that answer
    other.send(WHOLE)
    assert (await other.answer())[0] == 503
    server.may_answer.set()
    assert [(await merchant.answer())[0] for _ in range(2)] == [200, 200]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> "asyncio.Queue[tuple[_Protocol, bytes]]":
    """What the server has read, and on which connection."""
    queue: asyncio.Queue[tuple[_Protocol, bytes]] = asyncio.Queue()
    original = _Protocol.data_received

    def data_received(self: _Protocol, data: bytes) -> None:
        original(self, data)
        if data:
            queue.put_nowait((self, data))

    monkeypatch.setattr(_Protocol, "data_received", data_received)
    return queue


async def test_a_request_that_comes_in_pieces_is_heard(
    server: Server, reads: "asyncio.Queue[tuple[_Protocol, bytes]]"
) -> None:
    _, second = await busy(server)
    await reads.get()
    second.send(HEAD)
    assert (await reads.get())[1] == HEAD
    second.send(b"X: y\r\n\r\n{}")
    await reads.get()
    server.may_answer.set()
    assert (await second.answer())[0] == 200


async def test_who_does_not_listen_is_refused_no_more(
    server: Server, reads: "asyncio.Queue[tuple[_Protocol, bytes]]"
) -> None:
    _, second = await busy(server)
    await reads.get()
    second.send(WHOLE)
    connection, _ = await reads.get()
    assert (await second.answer())[0] == 503
    connection.pause_writing()  # as the transport does when the answers pile up
    second.send(WHOLE)
    await reads.get()
    server.may_answer.set()
    connection.resume_writing()
    assert (await second.answer())[0] == 200


async def test_who_goes_away_makes_room(server: Server) -> None:
    first, second = await busy(server)
    first.writer.close()
    server.may_answer.set()
    async with asyncio.timeout(5):
        while True:
            second.send(WHOLE)
            if (await second.answer())[0] == 200:
                break
