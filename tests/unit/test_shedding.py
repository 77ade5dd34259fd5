"""What is refused unheard, and how: requests that aiohttp reads, and those that it need not."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from services.api.errors import respond, saturated
from tests.serving import HEAD, WHOLE, Merchant, Reads, Server, serving, watched_reads


async def busy(server: Server) -> tuple[Merchant, Merchant]:
    """Who has a request under way, and who is to wait."""
    first, second = await server.connect(), await server.connect()
    first.send(WHOLE)
    await server.begun.wait()
    return first, second


@pytest.fixture(params=[False, True], ids=["by aiohttp", "plain"])
async def server(request: pytest.FixtureRequest, unused_tcp_port: int) -> AsyncIterator[Server]:
    """A server that lets one request be under way."""
    async with serving(unused_tcp_port, at_once=1, plain=request.param) as server:
        yield server


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return watched_reads(monkeypatch)


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
    assert (await first.answer())[0] == 202
    second.send(WHOLE)
    assert (await second.answer())[0] == 202


async def test_what_only_asks_is_heard_however_much_is_under_way(server: Server) -> None:
    _, second = await busy(server)
    second.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await second.answer())[0] == 202


async def test_answers_stay_in_the_order_of_requests(server: Server) -> None:
    merchant, other = await busy(server)
    merchant.send(WHOLE)  # before the first is answered: a refusal would overtake that answer
    other.send(WHOLE)
    assert (await other.answer())[0] == 503
    server.may_answer.set()
    assert [(await merchant.answer())[0] for _ in range(2)] == [202, 202]


async def test_a_request_that_comes_in_pieces_is_heard(server: Server, reads: Reads) -> None:
    _, second = await busy(server)
    await reads.get()
    second.send(HEAD)
    assert (await reads.get())[1] == HEAD
    second.send(b"X: y\r\n\r\n{}")
    await reads.get()
    server.may_answer.set()
    assert (await second.answer())[0] == 202


async def test_who_does_not_listen_is_refused_no_more(server: Server, reads: Reads) -> None:
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
    assert (await second.answer())[0] == 202


async def test_who_is_refused_again_and_again_keeps_the_connection(
    server: Server, reads: Reads
) -> None:
    _, second = await busy(server)
    await reads.get()
    second.send(WHOLE)
    connection, _ = await reads.get()
    assert (await second.answer())[0] == 503
    connection._next_keepalive_close_time = 0.0
    second.send(WHOLE)
    assert (await second.answer())[0] == 503
    connection._process_keepalive()
    second.send(WHOLE)
    assert (await second.answer())[0] == 503


async def comes_through(merchant: Merchant) -> None:
    """Ask until it is not refused."""
    async with asyncio.timeout(5):
        while True:
            merchant.send(WHOLE)
            if (await merchant.answer())[0] == 202:
                break


async def test_who_goes_away_makes_room(server: Server) -> None:
    first, second = await busy(server)
    first.writer.close()
    server.may_answer.set()
    await comes_through(second)


async def test_what_follows_a_request_inside_another_takes_no_room(
    unused_tcp_port: int, reads: Reads
) -> None:
    async with serving(unused_tcp_port, at_once=2, plain=True) as server:
        merchant = await server.connect()
        unread = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
        head = b"CONNECT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(unread)
        merchant.send(head + unread)
        assert [(await merchant.answer())[0] for _ in range(2)] == [404, 401]
        connection, _ = await reads.get()
        for _ in range(3):
            merchant.send(b"POST /n HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            await reads.get()
        merchant.writer.close()
        async with asyncio.timeout(5):
            while connection.transport is not None:  # noqa: ASYNC110 - as soon as it has gone
                await asyncio.sleep(0)
            for one in (clients := [await server.connect() for _ in range(2)]):
                server.begun.clear()
                one.send(WHOLE)
                await server.begun.wait()
        server.may_answer.set()
        assert [(await one.answer())[0] for one in clients] == [202, 202]
