"""Merchants' servers of four kinds, on one port of loopback: healthy, dead, slow and flapping.

Written on asyncio's protocols, so that what hears costs little beside what is measured. One request
in `SAMPLED` of a healthy one has its signature verified.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

SLOW: Final = 10.0
"""Seconds that the slow one takes to answer."""
FLAPS: Final = 5.0
"""Seconds for which the flapping one is well, and then is not."""
SAMPLED: Final = 50
KINDS: Final = ("healthy", "dead", "slow", "flapping")
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_BROKEN: Final = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_END: Final = b"\r\n\r\n"
Hear = Callable[[bytes, bytes, float], None]


class Receiver:
    """What arrived at each kind. `on_event` is told of what a healthy one hears: head, body and
    the wall-clock time in seconds."""

    def __init__(self) -> None:
        self.url = ""
        self.requests = dict.fromkeys(KINDS, 0)
        self.secrets: dict[str, str] = {}
        """The signing secret of each healthy endpoint, by its path."""
        self.verified = 0
        self.forged: list[str] = []
        self.on_event: Hear | None = None
        self._ending = False
        self._later: set[asyncio.TimerHandle] = set()
        self._waiting: set[asyncio.Transport] = set()

    def end(self) -> None:
        """Let the dead and the slow hang up, so that nobody waits for them."""
        self._ending = True
        for handle in self._later:
            handle.cancel()
        for transport in self._waiting:
            transport.abort()

    def hear(self, path: str, head: bytes, body: bytes, transport: asyncio.Transport) -> None:
        """One request, whole."""
        now = time.time()
        kind = path.split("/", 2)[1]
        self.requests[kind] += 1
        match kind:
            case "healthy":
                transport.write(_OK)
                self._take(path, head, body, now)
            case "flapping":
                well = int(time.monotonic() / FLAPS) % 2 == 0
                transport.write(_OK if well else _BROKEN)
            case _ if self._ending:
                transport.abort()
            case "slow":
                self._waiting.add(transport)
                loop = asyncio.get_running_loop()
                self._later.add(loop.call_later(SLOW, self._answer_late, transport))
            case _:
                self._waiting.add(transport)

    def gone(self, transport: asyncio.Transport) -> None:
        """Who asked has hung up."""
        self._waiting.discard(transport)

    def _answer_late(self, transport: asyncio.Transport) -> None:
        if transport in self._waiting:
            self._waiting.discard(transport)
            transport.write(_OK)

    def _take(self, path: str, head: bytes, body: bytes, now: float) -> None:
        secret = self.secrets.get(path)
        if secret is not None and self.requests["healthy"] % SAMPLED == 0:
            headers = headers_of(head)  # of the sample alone: whoever hears must cost little
            if is_signed(secret, headers, body):
                self.verified += 1
            else:
                self.forged.append(headers[b"webhook-id"].decode())
        if self.on_event is not None:
            self.on_event(head, body, now)


def is_signed(secret: str, headers: dict[bytes, bytes], body: bytes) -> bool:
    """Whether a request bears the signature of Standard Webhooks 1.0, made with `secret`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join([headers[b"webhook-id"], headers[b"webhook-timestamp"], body])
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    return expected in headers[b"webhook-signature"].split(b" ")


class _Merchant(asyncio.Protocol):
    """One connection of a sender. It may send the next request before the last is answered."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._receiver.gone(self._transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(_END)) >= 0 and self._transport is not None:
            head = self._read[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            start = end + len(_END)
            if len(self._read) < start + length:
                return
            body = self._read[start : start + length]
            self._read = self._read[start + length :]
            path = head.split(b" ", 2)[1].decode()
            self._receiver.hear(path, head, body, self._transport)


def headers_of(head: bytes) -> dict[bytes, bytes]:
    """The headers of a request, by their names in lower case."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    return {name.lower(): value.strip() for name, _, value in lines}


@contextlib.asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """The four of them on one free port of loopback, each at paths that begin with its name."""
    receiver = Receiver()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Merchant(receiver), "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        receiver.end()
        server.close()
