"""`./florin listen`: a developer's server hears the account's events, signed, and misses none."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator

import aiohttp
import stripe
from aiohttp import web
from standardwebhooks import Webhook

from cli.listen import SILENCE
from services.api.routes import events as streaming
from tests.receiver import Heard, Receiver
from tests.system import ROOT, System, eventually, run_command


class Listener:
    """The running command and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said += line.decode()

    async def says(self, text: str) -> None:
        async def said() -> bool:
            return text in self.said

        await eventually(said)

    @property
    def secret(self) -> str:
        found: list[str] = re.findall(r"whsec_\S+", self.said)
        return found[0]


@contextlib.asynccontextmanager
async def listening(
    system: System, forward_to: str, *arguments: str, **environment: str
) -> AsyncIterator[Listener]:
    """The command for the length of the block; then Ctrl-C, and it ends well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "listen", "--url", system.url, "--forward-to", forward_to,
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    listener = Listener(process)
    reading = asyncio.create_task(listener.read())
    try:
        yield listener
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0, listener.said
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def charge(system: System) -> str:
    async with (
        aiohttp.ClientSession(system.url) as http,
        http.post("/v1/charges", json={"amount": 100, "currency": "usd"}) as response,
    ):
        id_: str = (await response.json())["id"]
        return id_


async def test_events_are_forwarded_signed_and_in_order_with_a_line_each(
    system: System, receiver: Receiver
) -> None:
    async with listening(system, receiver.url) as listener:
        await listener.says("Ready.")
        paid = [await charge(system) for _ in range(3)]
        await receiver.wait_until(lambda: receiver.has_heard_the_outcome_of(paid))
        await listener.says(receiver.heard[-1].event["id"])
    for heard in receiver.heard:
        Webhook(listener.secret).verify(heard.body, heard.headers)
        stripe.Webhook.construct_event(
            heard.body, heard.headers["Stripe-Signature"], listener.secret
        )
    sequences = [heard.event["sequence"] for heard in receiver.heard]
    assert sequences == list(range(sequences[0], sequences[0] + 6))
    lines = [line for line in listener.said.splitlines() if "evt_" in line]
    assert len(lines) == 6
    assert all(re.match(r"\d\d:\d\d:\d\d  200 +\d+ ms  payment\.", line) for line in lines)


async def test_types_choose_and_a_server_that_refuses_or_is_away_is_shown(
    system: System, receiver: Receiver
) -> None:
    async def refuse(_: Heard) -> web.Response:
        return web.Response(status=500)

    receiver.answer = refuse
    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    async with (
        listening(
            system,
            receiver.url,
            "--events",
            "payment.completed,payment.failed",
            FLORIN_LISTEN_SECRET=secret,
        ) as listener,
        listening(system, "127.0.0.1:1/") as unheard,
    ):
        await listener.says("Ready.")
        await unheard.says("Ready.")
        await charge(system)
        await listener.says("  500 ")
        await unheard.says("not reached")
    assert [heard.event["type"] for heard in receiver.heard] == ["payment.completed"]
    Webhook(secret).verify(receiver.heard[0].body, receiver.heard[0].headers)


async def test_what_happens_while_the_api_is_away_is_heard_afterwards(
    system: System, receiver: Receiver
) -> None:
    async with listening(system, receiver.url) as listener:
        await listener.says("Ready.")
        before = await charge(system)
        await receiver.wait_until(lambda: receiver.has_heard_the_outcome_of([before]))
        pid = system.kill("api", signal.SIGKILL)
        await listener.says("waiting:")
        await system.wait_for_restart("api", pid)
        after = await charge(system)
        await receiver.wait_until(lambda: receiver.has_heard_the_outcome_of([before, after]))
    sequences = [heard.event["sequence"] for heard in receiver.heard]
    assert sequences == list(range(sequences[0], sequences[0] + 4)), "each once, none missed"


async def test_a_wrong_key_is_said_and_ends_it(system: System) -> None:
    status, said = await run_command(
        "listen", "--url", system.url, "--forward-to", "http://127.0.0.1:1/",
        FLORIN_API_KEY="sk_wrong_0123456789abcdef",
    )  # fmt: skip
    assert status == 1
    assert "Set FLORIN_API_KEY" in said
    assert "sk_wrong" not in said


async def test_a_stream_begins_where_it_is_asked_to(
    system: System,
) -> None:
    assert streaming.PING_AFTER * 2 < SILENCE, "the client takes a longer silence for death"
    await charge(system)
    async with aiohttp.ClientSession(system.url) as http:
        async with http.get("/v1/events/stream", params={"after": "0"}) as response:
            assert response.content_type == "text/event-stream"
            assert {"Request-Id", "RateLimit", "RateLimit-Policy"} <= set(response.headers)
            assert await response.content.readuntil(b"\n\n") == b"event: ready\nid: 0\ndata: {}\n\n"
            first = await response.content.readuntil(b"\n\n")
        assert b"\nid: 1\n" in first
        headers = {"Last-Event-ID": "1"}
        async with http.get("/v1/events/stream", headers=headers) as response:
            await response.content.readuntil(b"\n\n")
            assert b"\nid: 2\n" in await response.content.readuntil(b"\n\n")
        async with http.get("/v1/events/stream", headers={"Last-Event-ID": "x"}) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (
                400, "Last-Event-ID",
            )  # fmt: skip


async def test_an_api_that_drains_ends_its_streams(system: System) -> None:
    async with (
        aiohttp.ClientSession(system.url) as http,
        http.get("/v1/events/stream") as response,
    ):
        await response.content.readuntil(b"\n\n")
        pid = system.kill("api", signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await response.content.read() == b""
    await system.wait_for_restart("api", pid)
