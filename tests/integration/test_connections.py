"""Connections are kept, bounded and never mixed up, on the loop that runs and on the plain one."""

import asyncio
import contextlib
import inspect
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.notifier import pool
from services.notifier.sender import Sender, open_sender
from tests.talking import LOOPBACK, OK, Server, attempt, self_signed, send

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Have a test run by itself on each kind of event loop."""

    @wraps(test)
    def run(*, loop: str, **fixtures: Any) -> None:
        faults: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            # What the loop alone is told of is a fault too.
            runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))

            async def bounded() -> None:
                async with asyncio.timeout(30):
                    await test(**fixtures)

            runner.run(bounded())
        assert faults == []

    signature = inspect.signature(test)
    parameters = [*signature.parameters.values(), Parameter("loop", Parameter.KEYWORD_ONLY)]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(run)
    return marked


@contextlib.asynccontextmanager
async def sending(
    connections: int = 10, timeout: float = 5.0
) -> AsyncIterator[tuple[Sender, Server]]:
    server = Server()
    async with open_sender(timeout=timeout, allowed=LOOPBACK, connections=connections) as sender:
        yield sender, server
    server.close()


def kept(server: Server) -> Callable[..., Awaitable[None]]:
    """A server's talk that answers one request after another."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.hear(reader)
            writer.write(OK)

    return talk


@on_both_loops
async def test_one_connection_carries_one_request_after_another() -> None:
    async with sending() as (sender, server):
        url = await server.open(kept(server))
        assert {(await send(sender, url)).status_code for _ in range(20)} == {200}
        assert (server.connections, server.requests) == (1, 20)


@on_both_loops
async def test_a_server_that_closed_all_that_lay_idle_costs_no_attempt() -> None:
    async with sending() as (sender, server):
        writers: list[asyncio.StreamWriter] = []
        together = asyncio.Barrier(3)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            while True:
                await server.hear(reader)
                if server.requests <= 3:
                    await together.wait()
                writer.write(OK)

        url = await server.open(talk)
        await asyncio.gather(*(send(sender, url) for _ in range(3)))
        for writer in writers:
            writer.transport.abort()
        results = await asyncio.gather(*(send(sender, url) for _ in range(3)))
        assert [result.status_code for result in results] == [200] * 3
        assert (server.connections, server.requests) == (6, 6)


@on_both_loops
async def test_when_one_that_lay_idle_is_dead_the_others_are_not_tried() -> None:
    async with sending() as (sender, server):
        together = asyncio.Barrier(4)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.hear(reader)
            if server.requests <= 4:
                await together.wait()
            writer.write(OK)
            await server.hear(reader)  # and hangs up, as one does who has forgotten

        url = await server.open(talk)
        await asyncio.gather(*(send(sender, url) for _ in range(4)))
        assert (await send(sender, url)).status_code == 200
        assert (server.connections, server.requests) == (5, 6)


@on_both_loops
async def test_a_request_on_a_new_connection_that_broke_is_not_repeated() -> None:
    async with sending() as (sender, server):

        async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await server.hear(reader)

        result = await send(sender, await server.open(talk))
        assert result.error == "the server closed the connection before it answered"
        assert server.requests == 1


@on_both_loops
async def test_a_request_that_was_answered_in_part_is_not_repeated() -> None:
    async with sending() as (sender, server):

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.hear(reader)
            writer.write(OK)
            await server.hear(reader)
            writer.write(b"H")

        url = await server.open(talk)
        assert (await send(sender, url)).status_code == 200
        result = await send(sender, url)
        assert result.error == "the server closed the connection within its answer"
        assert server.requests == 2


@on_both_loops
async def test_an_idle_connection_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEPT_IDLE", 0.01)
    async with sending() as (sender, server):
        ended = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.hear(reader)
            writer.write(OK)
            assert await reader.read() == b""
            ended.set()

        await send(sender, await server.open(talk))
        await ended.wait()


@on_both_loops
async def test_what_comes_on_an_idle_connection_answers_nothing() -> None:
    async with sending() as (sender, server):
        ended = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.hear(reader)
            writer.write(OK)
            if server.connections == 1:
                await answered.wait()
                writer.write(b"HTTP/1.1 500 Surprise\r\nContent-Length: 0\r\n\r\n")
                assert await reader.read() == b""
                ended.set()

        answered = asyncio.Event()
        url = await server.open(talk)
        await send(sender, url)
        answered.set()
        await ended.wait()
        assert (await send(sender, url)).status_code == 200
        assert server.connections == 2


@on_both_loops
async def test_connections_are_bounded_and_who_comes_first_is_served_first() -> None:
    async with sending(connections=2) as (sender, server):
        arrived: asyncio.Queue[str] = asyncio.Queue()
        go = asyncio.Semaphore(0)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                arrived.put_nowait(await server.hear(reader))
                await go.acquire()
                writer.write(OK)

        url = await server.open(talk)
        sends = []
        for number in range(10):
            sends.append(asyncio.ensure_future(sender.send(attempt(url, str(number)), {})))
            await asyncio.sleep(0)
        order = []
        for _ in range(10):
            order.append(await arrived.get())
            if len(order) >= 2:
                go.release()
        go.release()
        assert {result.status_code for result in await asyncio.gather(*sends)} == {200}
        assert sorted(order[:2]) == ["0", "1"]
        assert order[2:] == [str(number) for number in range(2, 10)]
        assert server.connections == 2


@on_both_loops
async def test_idle_connections_make_room_for_those_elsewhere() -> None:
    async with sending(connections=2) as (sender, _):
        ends: asyncio.Queue[int] = asyncio.Queue()

        def talk_of(number: int) -> Callable[..., Awaitable[None]]:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await kept(others[number])(reader, writer)
                ends.put_nowait(number)

            return talk

        others = [Server() for _ in range(3)]
        urls = [await other.open(talk_of(number)) for number, other in enumerate(others)]
        for url in urls:
            assert (await send(sender, url)).status_code == 200
        assert await ends.get() == 0, "the one that lay idle for longest"
        for url in urls[1:]:
            assert (await send(sender, url)).status_code == 200
        assert [other.connections for other in others] == [1, 1, 1]
        for other in others:
            other.close()


@on_both_loops
async def test_a_connection_that_is_about_to_end_takes_nobodys_place() -> None:
    async with sending(connections=1) as (sender, server):
        url = await server.open(kept(server))
        assert (await send(sender, url)).status_code == 200
        [ending] = sender._plain._open
        ending.close()
        assert (await send(sender, url)).status_code == 200
        assert server.connections == 2


@pytest.mark.parametrize("seed", range(5))
@on_both_loops
async def test_no_answer_is_ever_taken_for_that_to_another_request(seed: int) -> None:
    chance = random.Random(seed)
    async with sending(connections=4) as (sender, server):
        late: list[tuple[asyncio.StreamWriter, bytes]] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                body = (await server.hear(reader)).encode()
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                match chance.randrange(5):
                    case 0:
                        late.append((writer, answer))
                        continue  # and listen on: whoever asks here next would hear it
                    case 1:
                        half = chance.randrange(len(answer))
                        writer.write(answer[:half])
                        late.append((writer, answer[half:]))
                        continue
                    case 2:
                        writer.write(answer + answer)
                    case _:
                        writer.write(answer)
                chance.shuffle(late)
                while late and chance.randrange(2):
                    other, rest = late.pop()
                    if not other.is_closing():
                        other.write(rest)

        url = await server.open(talk)

        async def work(name: int) -> int:
            right = 0
            for number in range(60):
                body = f"{name}-{number}"
                sent = asyncio.ensure_future(sender.send(attempt(url, body), {}, within=0.02))
                if not chance.randrange(8):
                    await asyncio.sleep(0)
                    sent.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await sent
                    continue
                result = await sent
                if result.status_code is None:
                    assert (result.error or "").startswith("no complete answer within"), result
                else:
                    assert (result.status_code, result.response_start) == (200, body)
                    right += 1
            return right

        assert sum(await asyncio.gather(*(work(name) for name in range(6)))) > 0


@on_both_loops
async def test_a_certificate_that_is_vouched_for_is_believed_for_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.pem"
    context = self_signed(own)
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    async with sending() as (sender, server):
        url = await server.open(kept(server), context)
        named = url.replace("127.0.0.1", "localhost")
        assert {(await send(sender, named)).status_code for _ in range(5)} == {200}
        assert (server.connections, server.requests) == (1, 5)
        greetings: list[str | None] = []
        context.sni_callback = lambda _, name, __: greetings.append(name)
        assert "certificate" in ((await send(sender, url)).error or "")
        assert len(greetings) == 1, "it would be no other a moment later"


@on_both_loops
async def test_a_handshake_that_is_given_up_leaves_no_connection() -> None:
    async with sending() as (sender, server):
        ended = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()
            ended.set()

        url = (await server.open(talk)).replace("http:", "https:")
        result = await sender.send(attempt(url), {}, within=0.05)
        assert result.error == "no complete answer within 0.05 s"
        await ended.wait()


@on_both_loops
async def test_an_ipv6_address_is_reached() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    async with sending() as (sender, server):
        url = await server.open(kept(server), host="::1")
        assert (await send(sender, url)).status_code == 200


@on_both_loops
async def test_a_header_that_would_begin_another_is_never_written() -> None:
    async with sending() as (sender, server):
        url = await server.open(kept(server))
        for name, value in (("X", "a\r\nY: b"), ("X\nY", "b"), ("X", "a\0")):
            result = await sender.send(attempt(url), {name: value})
            assert result.error == "ValueError: a header holds a control character"
        assert server.connections == 0


@on_both_loops
async def test_a_sender_that_is_closed_makes_no_outcome_up() -> None:
    heard = asyncio.Event()
    async with sending() as (sender, server):

        async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await server.hear(reader)
            heard.set()
            await reader.read()

        url = await server.open(talk)
        under_way = asyncio.ensure_future(send(sender, url))
        await heard.wait()
    for sent in (under_way, send(sender, url)):
        with pytest.raises(ConnectionError):
            await sent
