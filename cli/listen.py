"""`./florin listen`: webhooks for a server on a developer's machine, which no webhook can reach.

Events come over the API as a stream and are posted one after the other, signed like any webhook.
What happens while the stream is cut off is not lost: it goes on behind the last event.
"""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import random
from typing import Final

import aiohttp
from rich.console import Console
from rich.text import Text

from cli.event_stream import Decoder, Told
from services.notifier.signing import signature_headers
from shared.backoff import exponential
from shared.errors import Misconfigured, Transient
from shared.version import VERSION
from shared.webhook_endpoint import new_signing_secret

TIMEOUT: Final = 15.0
"""Seconds that the local server has for one event."""
SILENCE: Final = 45.0
"""Seconds after which a stream that says nothing, not even that it is still there, is taken for
dead."""
READY: Final = "ready"


class Interrupted(Transient):
    """The stream has ended; it can be taken up again."""


@dataclass(slots=True)
class Listening:
    """What the command line and the environment said. `types` empty: all."""

    url: str
    forward_to: str
    types: Sequence[str]
    after: int | None
    key: str | None
    secret: str | None


async def listen(listening: Listening) -> int:
    """Forward until Ctrl-C; returns the exit status. Raises Misconfigured when it cannot."""
    console = Console(highlight=False, soft_wrap=True)
    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    forwarding = asyncio.create_task(_forward_for_ever(listening, console))
    waiting = asyncio.create_task(ending.wait())
    await asyncio.wait({forwarding, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if forwarding.done():
        forwarding.result()
    forwarding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await forwarding
    return 0


async def _forward_for_ever(listening: Listening, console: Console) -> None:
    secret = listening.secret or new_signing_secret()
    last, failures = listening.after, 0
    greeted = False
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        while True:
            try:
                async for told in _stream(session, listening, last):
                    failures = 0
                    if told.type != READY:
                        await _forward(session, listening, secret, told, console)
                    elif not greeted:
                        greeted = True
                        console.print(f"Ready. Requests are signed with {secret}")
                        console.print(
                            f"Events of {listening.url} go to {listening.forward_to}; Ctrl-C ends."
                        )
                    last = int(told.id)
            except Interrupted as error:
                failures += 1
                console.print(Text(f"{_clock()}  waiting: {error}", style="yellow"))
                pause = exponential(failures, base=0.5, cap=5, rand=random())  # noqa: S311 - jitter
                await asyncio.sleep(pause)


async def _stream(
    session: aiohttp.ClientSession, listening: Listening, last: int | None
) -> AsyncIterator[Told]:
    """Events behind number `last`. Raises Interrupted when the stream ends, or cannot begin yet."""
    headers = {"Authorization": f"Bearer {listening.key}"} if listening.key else {}
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    decoder = Decoder()
    try:
        async with session.get(
            f"{listening.url}/api/v1/events/stream",
            headers=headers,
            params=[("types[]", type_) for type_ in listening.types],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE),
        ) as response:
            if response.status != 200:
                await _refused(response)
            async for line in response.content:
                for told in decoder.feed(line.decode()):
                    yield told
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Interrupted(str(error) or type(error).__name__) from None
    raise Interrupted("the server ended the stream")


async def _refused(response: aiohttp.ClientResponse) -> None:
    """Raise what a refusal means: wait, or say what is wrong."""
    try:
        message = (await response.json())["error"]["message"]
    except (ValueError, KeyError, TypeError, aiohttp.ContentTypeError):
        message = f"the server answered {response.status}"
    if response.status == 429 or response.status >= 500:
        raise Interrupted(message)
    raise Misconfigured(
        f"{response.url.origin()} refuses: {message}"
        + (" Set FLORIN_API_KEY." if response.status == 401 else "")
    )


async def _forward(
    session: aiohttp.ClientSession,
    listening: Listening,
    secret: str,
    told: Told,
    console: Console,
) -> None:
    """Post one event, and say in a line what came of it."""
    body = told.data.encode()
    event_id = str(json.loads(body)["id"])
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Florin/{VERSION}",
        **signature_headers([secret], event_id, int(time.time()), body),
    }
    started = time.monotonic()
    try:
        async with session.post(
            listening.forward_to,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        ) as response:
            await response.read()
            outcome, style = str(response.status), "green" if response.ok else "red"
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        reason = str(getattr(error, "os_error", None) or error) or type(error).__name__
        outcome, style = f"not reached: {reason}", "red"
    took = round((time.monotonic() - started) * 1000)
    line = Text(f"{_clock()}  ")
    line.append(outcome, style=style)
    line.append(f"  {took:>5} ms  {told.type:<26}  {event_id}")
    console.print(line)


def _clock() -> str:
    return time.strftime("%H:%M:%S")
