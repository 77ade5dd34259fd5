"""Plain requests: read by ourselves only beyond doubt, and answered as aiohttp would."""

import asyncio
from collections.abc import AsyncIterator
from unittest import mock

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.plain import LONGEST, read
from tests.serving import HEAD, WHOLE, Reads, Server, serving, watched_reads


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (WHOLE, True),
        (HEAD + b"Connection: keep-alive\r\n\r\n{}", True),
        (HEAD + b"connection:KEEP-ALIVE \r\n\r\n{}", True),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET /v1/charges HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nhost:x\r\nCONTENT-LENGTH:0\r\n\r\n", True),
        (b"", False),
        (HEAD, False),
        (WHOLE[:-1], False),
        (WHOLE + b"P", False),
        (WHOLE + WHOLE, False),
        (b"\r\n" + WHOLE, False),
        (b"POST / HTTP/1.0\r\nHost: x\r\n\r\n", False),
        (b"POST http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"PRI / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"POST /a b HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nX: y\r\n\r\n", False),
        (HEAD + b"HOST: x\r\n\r\n{}", False),
        (HEAD + b"Connection: close\r\n\r\n{}", False),
        (HEAD + b"Connection: keep-alive\r\nConnection: close\r\n\r\n{}", False),
        (HEAD + b"Proxy-Connection: close\r\n\r\n{}", False),
        (HEAD + b"Connection: keep-alive, Upgrade\r\n\r\n{}", False),
        (HEAD + b"Upgrade: h2c\r\n\r\n{}", False),
        (HEAD + b"Expect: 100-continue\r\n\r\n{}", False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n{}", False),
        (HEAD + b"Transfer-Encoding : chunked\r\n\r\n{}", False),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", False),
        (HEAD + b"Content-Length : 2\r\n\r\n{}", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}", False),
        (b"POST / HTTP/1.1\r\nHost: x\nContent-Length: 2\r\n\r\n{}", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: y\0\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: \xc3\xa9\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * LONGEST + b"\r\n\r\n", False),
    ],
)
def test_a_request_is_whole_only_beyond_doubt(data: bytes, whole: bool) -> None:
    assert (read(data) is not None) is whole


PIECES = st.sampled_from(
    [
        b"POST", b"GET", b"CONNECT", b"PURGE", b" ", b"/", b"/v1/charges", b"?a=b", b"*",
        b" HTTP/1.1", b" HTTP/1.0",
        b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\t", b"\0", b":", b",", b"Host: x",
        b"Content-Length: ", b"Content-Length:0", b"content-length: 2", b"0", b"2", b"{}",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding", b"identity", b"Connection: ",
        b"keep-alive", b"close", b"Proxy-Connection: close", b"Sec-WebSocket-Key1: x",
        b"Expect: 100-continue", b"Upgrade: h2c", b"X-User-ID: u",
        b"Authorization: Bearer sk_x", b"X", b"\xc3\xa9", b"\x80", b"\x7f", b"2\r\n{}\r\n0\r\n\r\n",
    ]
)  # fmt: skip
WRITTEN = st.lists(PIECES, max_size=14).map(b"".join)
NEARLY_WHOLE = st.tuples(
    st.sampled_from([b"POST", b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI", b"MSEARCH"]),
    st.sampled_from([b" /v1/charges HTTP/1.1\r\n", b" / HTTP/1.1\r\nHost: x\r\n"]),
    st.lists(PIECES, max_size=6).map(b"".join),
    st.sampled_from([b"\r\n\r\n", b"\r\n\r\n{}", b"\r\nContent-Length: 2\r\n\r\n{}"]),
).map(b"".join)


@settings(max_examples=1000)
@given(WRITTEN | NEARLY_WHOLE)
def test_what_is_taken_for_a_request_is_the_same_one_to_aiohttp(data: bytes) -> None:
    plain = read(data)
    if plain is None:
        return
    loop = mock.Mock(spec=asyncio.AbstractEventLoop)
    parser = HttpRequestParser(mock.Mock(_reading_paused=False), loop, 2**16)
    try:
        [(message, body)], upgraded, rest = parser.feed_data(data)
    except HttpProcessingError as error:
        pytest.fail(f"{data!r} is no request to aiohttp: {error}")
    assert (upgraded, rest) == (False, b"")
    assert f"{message.method} {message.path}".encode() == plain.line
    assert message.headers == plain.headers
    assert not message.should_close
    assert b"".join(piece for piece in getattr(body, "_buffer", ())) == plain.body


@pytest.fixture
async def server(unused_tcp_port: int) -> AsyncIterator[Server]:
    async with serving(unused_tcp_port, at_once=10, plain=True) as server:
        yield server


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return watched_reads(monkeypatch)


async def test_both_ways_answer_alike(server: Server, reads: Reads) -> None:
    server.may_answer.set()
    merchant = await server.connect()
    merchant.send(WHOLE)
    plain = await merchant.answer()
    merchant.send(HEAD)
    while (await reads.get())[1] != HEAD:
        pass
    merchant.send(b"\r\n{}")
    by_aiohttp = await merchant.answer()
    del plain[1]["Date"], by_aiohttp[1]["Date"]
    assert plain == by_aiohttp
    assert plain[2] == b"{}"


async def test_what_comes_before_an_answer_is_answered_after_it_and_in_order(
    server: Server, reads: Reads
) -> None:
    merchant = await server.connect()
    merchant.send(WHOLE)
    connection, _ = await reads.get()
    second = WHOLE.replace(b"{}", b"[]")
    third = WHOLE.replace(b"{}", b"12")
    merchant.send(second + third[:30])
    await reads.get()
    assert connection.transport is not None
    assert not connection.transport.is_reading()  # whoever sends on and on waits
    merchant.send(third[30:])
    server.may_answer.set()
    assert [(await merchant.answer())[2] for _ in range(3)] == [b"{}", b"[]", b"12"]


async def test_one_under_way_is_finished_when_the_service_stops(unused_tcp_port: int) -> None:
    async with serving(unused_tcp_port, at_once=10, plain=True, drain_timeout=5) as server:
        merchant, idle = await server.connect(), await server.connect()
        merchant.send(WHOLE)
        await server.begun.wait()
        merchants, server.merchants = server.merchants, []
        over = asyncio.create_task(idle.end())
        over.add_done_callback(lambda _: server.may_answer.set())
    assert (await merchant.answer())[0] == 202
    assert await merchant.end() == b""
    for one in merchants:
        one.writer.close()


async def test_one_that_takes_longer_than_an_idle_connection_is_kept_is_answered(
    server: Server, reads: Reads
) -> None:
    merchant = await server.connect()
    server.may_answer.set()
    merchant.send(WHOLE)
    connection, _ = await reads.get()
    assert (await merchant.answer())[0] == 202
    server.may_answer.clear()
    server.begun.clear()
    merchant.send(WHOLE)
    await server.begun.wait()
    connection._next_keepalive_close_time = 0.0
    connection._process_keepalive()  # as aiohttp's timer does, which knows of no plain request
    server.may_answer.set()
    assert (await merchant.answer())[0] == 202


async def test_a_body_that_was_not_read_holds_no_request(server: Server, reads: Reads) -> None:
    server.may_answer.set()
    merchant = await server.connect()
    head = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * len(WHOLE))
    merchant.send(head)
    await reads.get()
    assert (await merchant.answer())[0] == 401
    for _ in range(2):  # the body, in pieces that look like requests
        merchant.send(WHOLE)
        await reads.get()
    merchant.send(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await merchant.answer())[1]["X-Way"] == "/next"
    assert server.heard == ["POST", "GET"]


async def test_what_a_connect_holds_is_no_request_of_ours(server: Server, reads: Reads) -> None:
    server.may_answer.set()
    merchant = await server.connect()
    unread = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(WHOLE)
    head = b"CONNECT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(unread)
    merchant.send(head + unread)  # to aiohttp what follows this head is another request
    assert [(await merchant.answer())[0] for _ in range(2)] == [404, 401]
    await reads.get()
    merchant.send(WHOLE)  # the body that nobody has read
    await reads.get()
    merchant.send(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await merchant.answer())[1]["X-Way"] == "/next"
    assert server.heard == ["POST", "GET"]


async def test_what_comes_when_the_service_has_stopped_is_not_heard(
    server: Server, reads: Reads
) -> None:
    server.may_answer.set()
    merchant = await server.connect()
    merchant.send(WHOLE)
    connection, _ = await reads.get()
    assert (await merchant.answer())[0] == 202
    connection.close()
    connection.data_received(WHOLE)
    await connection.shutdown(1)
    assert await merchant.end() == b""
    assert server.heard == ["POST"]


async def test_who_goes_away_has_been_heard(server: Server) -> None:
    merchant = await server.connect()
    merchant.send(WHOLE)
    await server.begun.wait()
    merchant.writer.close()
    server.may_answer.set()
    await asyncio.wait_for(server.answered.wait(), 5)
    assert server.bodies == [b"{}"]


@pytest.mark.parametrize("fault", [RuntimeError("no header today"), asyncio.CancelledError()])
async def test_a_fault_of_ours_ends_the_connection(server: Server, fault: BaseException) -> None:
    server.fault = fault
    server.may_answer.set()
    merchant = await server.connect()
    merchant.send(WHOLE)
    assert await merchant.end() == b""
