"""One attempt on the wire: what is sent, where it may go, and what is taken of an answer."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohappyeyeballs import AddrInfoType
from aiohttp import web

from services.notifier.sender import MAX_RESPONSE, Sender, _vetted_socket, open_sender
from tests.receiver import Heard, Receiver
from tests.talking import LOOPBACK, OK, Server, self_signed, send


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with open_sender(timeout=1.0, allowed=LOOPBACK, connections=10) as sender:
        yield sender


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


async def test_a_connection_that_was_closed_while_it_lay_idle_costs_no_attempt(
    sender: Sender, server: Server
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.hear(reader)
        writer.write(OK)
        if server.connections == 1:  # and the second request finds nobody
            await reader.readexactly(1)

    url = await server.open(talk)
    assert [(await send(sender, url)).status_code for _ in range(2)] == [200, 200]
    assert (server.connections, server.requests) == (2, 2)


async def test_a_request_that_was_heard_and_not_answered_is_an_attempt_and_is_not_repeated(
    sender: Sender, server: Server
) -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await server.hear(reader)

    result = await send(sender, await server.open(talk))
    assert result.status_code is None
    assert server.requests == 1


async def test_one_deadline_covers_an_answer_that_drips(sender: Sender, server: Server) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.hear(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    result = await send(sender, await server.open(talk))
    assert result.error == "no complete answer within 1 s"
    assert 900 <= result.duration_ms <= 2500


async def test_no_more_of_an_answer_is_read_than_the_bound(sender: Sender, server: Server) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.hear(reader)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(100_000_000 // MAX_RESPONSE):
            writer.write(b"x" * MAX_RESPONSE)
            await writer.drain()
            server.written += MAX_RESPONSE

    result = await send(sender, await server.open(talk))
    assert result.status_code == 200
    assert result.response_start == "x" * 4096
    assert server.written < 200 * MAX_RESPONSE, "what the kernels hold, and no more"


async def test_what_is_kept_is_what_postgres_can_hold_and_four_kilobytes_of_it(
    sender: Sender, receiver: Receiver
) -> None:
    async def noise(_: Heard) -> web.Response:
        return web.Response(body=b"a\0b\xff" * 4000)

    receiver.answer = noise
    kept = (await send(sender, receiver.url)).response_start or ""
    assert kept.startswith("a\ufffdb\ufffd")
    assert len(kept.encode()) <= 4096


async def test_an_answer_with_nul_in_its_head_is_an_error_that_can_be_stored(
    sender: Sender, server: Server
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.hear(reader)
        writer.write(b"HTTP/1.1 200 O\0K\r\nX: \0\r\nContent-Length: 0\r\n\r\n")

    result = await send(sender, await server.open(talk))
    assert result.error is None or "\0" not in result.error


async def test_no_cookie_comes_back(sender: Sender, receiver: Receiver) -> None:
    async def bake(_: Heard) -> web.Response:
        return web.Response(headers={"Set-Cookie": "a=b"})

    receiver.answer = bake
    url = receiver.url.replace("127.0.0.1", "localhost")  # addresses get no cookies anyway
    for _ in range(2):
        assert (await send(sender, url)).status_code == 200
    assert all("Cookie" not in heard.headers for heard in receiver.heard)


async def test_ours_prevail_over_custom_headers_however_they_are_written(
    sender: Sender, receiver: Receiver
) -> None:
    custom = {"user-agent": "me", "WEBHOOK-ID": "evt_other", "X-Mine": "1"}
    await send(sender, receiver.url, **custom)
    [heard] = receiver.heard
    lowered = [name.lower() for name in heard.headers]
    assert len(lowered) == len(set(lowered))
    assert heard.headers["webhook-id"] == "evt_1"
    assert heard.headers["User-Agent"].startswith("Florin/")
    assert heard.headers["X-Mine"] == "1"


async def test_the_address_is_vetted_where_the_socket_is_made(receiver: Receiver) -> None:
    async with open_sender(timeout=1.0, allowed=(), connections=10) as strict:
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
            result = await send(strict, receiver.url.replace("127.0.0.1", host))
            assert result.status_code is None, host
            assert "is not public" in (result.error or ""), result.error
    assert receiver.heard == []


def info(address: str) -> AddrInfoType:
    """What a name was resolved to, as a connection is about to be made."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, 0, "", (address, 443))


def test_public_addresses_are_reached_by_https_and_by_http_where_that_is_allowed() -> None:
    _vetted_socket((), False, info("8.8.8.8")).close()
    with pytest.raises(OSError, match="FLORIN_WEBHOOK_ALLOW_HTTP"):
        _vetted_socket((), True, info("8.8.8.8"))
    with pytest.raises(OSError, match="FLORIN_WEBHOOK_ALLOWED_NETWORKS"):
        _vetted_socket((), False, info("::1"))


async def test_http_to_a_public_address_never_leaves() -> None:
    async with open_sender(timeout=1.0, allowed=LOOPBACK, connections=10) as strict:
        result = await send(strict, "http://8.8.8.8/hook")
    assert "FLORIN_WEBHOOK_ALLOW_HTTP" in (result.error or "")


async def test_a_certificate_that_nobody_vouches_for_is_not_believed(
    sender: Sender, server: Server, tmp_path: Path
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.hear(reader)
        writer.write(OK)

    url = await server.open(talk, self_signed(tmp_path / "own.pem"))
    result = await send(sender, url)
    assert result.status_code is None
    assert "certificate" in (result.error or "").lower()
    assert server.requests == 0
