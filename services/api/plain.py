"""Plain requests: whole in one read, on a connection that is kept, to a route that looks at no more
than headers and a body.

Nearly all payments come so. They need neither a parser that can stop anywhere nor a router nor a
response that can be written bit by bit, and aiohttp's cost more than accepting does. Everything
else is aiohttp's. Both ways lead to the same gate and the same handlers: they differ in how bytes
become a request and a response becomes bytes, and in nothing that a client could tell.
"""

import re
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.helpers import HeadersMixin
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct
from multidict import CIMultiDict

LONGEST: Final = 8_000
"""Bytes of a request that is worth looking at here: aiohttp would refuse no line of it for its
length, either."""
MOST_FIELDS: Final = 100
# RFC 9112 §5, and of its values only the ASCII ones; no line is folded.
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e]*(?:\r\n|$))*")
# Not CONNECT, nor what aiohttp may not know: what follows their heads need be no body.
_LINE: Final = re.compile(rb"((?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /[\x21-\x7e]*) HTTP/1\.1")
_LENGTH: Final = re.compile("[0-9]{1,5}")
_NEEDS_MORE: Final = frozenset(
    ("transfer-encoding", "expect", "upgrade", "proxy-connection", "sec-websocket-key1")
)


class Plain(Struct, frozen=True):
    """One request, as it came. `line` is its method and target: `POST /v1/charges`."""

    line: bytes
    headers: CIMultiDict[str]
    body: bytes


Answering = Callable[[Plain, str | None], Awaitable[bytes]]
"""Makes the answer to a request that came from an address."""


def read(data: bytes) -> Plain | None:
    """`data` as one HTTP/1.1 request from its first byte to its last, if it is that beyond doubt:
    of known length, on a connection that is kept (RFC 9112 §6)."""
    if len(data) > LONGEST:
        return None
    head, end, body = data.partition(b"\r\n\r\n")
    first, _, fields = head.partition(b"\r\n")
    line = _LINE.fullmatch(first)
    if not end or line is None or _FIELDS.fullmatch(fields) is None:
        return None
    headers = CIMultiDict[str]()
    for field in fields.decode("ascii").split("\r\n") if fields else ():
        name, _, value = field.partition(":")
        headers.add(name, value.strip(" \t"))
    names = {name.lower() for name in headers}
    if len(names) != len(headers) or len(names) > MOST_FIELDS:
        return None  # of two with one name, which would count?
    if not names.isdisjoint(_NEEDS_MORE):
        return None
    return Plain(line[1], headers, body) if _is_framed(headers, len(body)) else None


def _is_framed(headers: CIMultiDict[str], length: int) -> bool:
    """Whether headers say that a body of this length ends a request on a connection that is
    kept."""
    if "Host" not in headers or headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return False
    said = headers.get("Content-Length", "0")
    return _LENGTH.fullmatch(said) is not None and int(said) == length


def write(response: web.Response) -> bytes:
    """A response whose body is bytes, as it goes over the wire on a connection that is kept."""
    body = response.body
    assert isinstance(body, bytes)  # noqa: S101 - what is answered here is text
    fields = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()])
    head = (
        f"HTTP/1.1 {response.status} {response.reason}\r\n{fields}"
        f"Content-Length: {len(body)}\r\nDate: {_date(int(time.time()))}\r\n\r\n"
    )
    return head.encode() + body


@lru_cache(maxsize=1)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)


class PlainRequest(dict[Any, Any], HeadersMixin):
    """What the gate and a handler of a plain route use of a `web.Request`."""

    def __init__(self, app: web.Application, plain: Plain, remote: str | None) -> None:
        super().__init__()
        method, _, path = plain.line.decode("ascii").partition(" ")
        self.app = app
        self.method = method
        self.path = path
        self.headers = self._headers = plain.headers
        self.remote = remote
        self._body = plain.body

    async def read(self) -> bytes:
        """The body."""
        return self._body


def answering(
    app: web.Application,
    gate: Middleware,
    dress: Callable[[web.Request, web.StreamResponse], Awaitable[None]],
    handler: Handler,
) -> Answering:
    """How plain requests are answered by `handler`, behind the `gate`."""

    async def answer(plain: Plain, remote: str | None) -> bytes:
        request = cast("web.Request", PlainRequest(app, plain, remote))
        response = await gate(request, handler)
        await dress(request, response)
        return write(cast("web.Response", response))

    return answer
