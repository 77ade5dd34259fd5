"""One attempt over HTTP: what goes on the wire, and what may come back.

One deadline covers everything; the response is read to a bound, whatever its length says;
redirects are not followed and cookies not kept; and the address of every socket is vetted.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import aiohttp
import tenacity

from services.notifier.addresses import Network, refusal
from services.notifier.attempt import Attempt
from services.notifier.policy import Result
from services.notifier.resolver import Resolver
from services.notifier.signing import signature_headers
from shared.version import VERSION

MAX_RESPONSE: Final = 64 * 1024
KEPT_RESPONSE: Final = 4 * 1024
_MADE: Final = ContextVar[list[str]]("addresses to which this task's request made a connection")
_RETRY_AFTER_STATUSES: Final = (429, 503)


class AddressRefused(OSError):  # noqa: N818 - it says what happened
    """The endpoint's name leads to an address that webhooks may not reach."""


class Sender:
    """Sends attempts through pools of kept-alive connections: one for https, and one for http,
    which reaches less."""

    def __init__(
        self, secure: aiohttp.ClientSession, plain: aiohttp.ClientSession, timeout: float
    ) -> None:
        self._secure = secure
        self._plain = plain
        self._timeout = timeout

    async def send(
        self, attempt: Attempt, custom: Mapping[str, str], *, within: float | None = None
    ) -> Result:
        """Make `attempt`, with the endpoint's `custom` headers, `within` so many seconds.

        Never raises: a fault is a result without a status code.
        """
        started_at, started = datetime.now(UTC), time.monotonic()
        status = response_start = error = retry_after = None
        timeout = min(self._timeout, within or self._timeout)
        try:
            async with asyncio.timeout(timeout):
                status, response_start, retry_after = await self._post(attempt, custom)
        except TimeoutError:
            error = f"no complete answer within {timeout:g} s"
        except Exception as fault:
            if self._secure.closed:
                raise  # we are stopping: that is no outcome, and the lease will run out
            error = _explain(fault)
        return Result(
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000),
            status_code=status,
            response_start=response_start,
            error=_storable(error) if error else None,
            retry_after=retry_after,
        )

    async def _post(
        self, attempt: Attempt, custom: Mapping[str, str]
    ) -> tuple[int, str, str | None]:
        body = attempt.body.encode()
        ours = {
            "Content-Type": "application/json",
            "User-Agent": f"Florin/{VERSION}",
            "Accept-Encoding": "identity",  # the start of the response is kept as it comes
            **signature_headers(attempt.secrets, attempt.event_id, int(time.time()), body),
        }
        names = {name.lower() for name in ours}
        headers = {n: v for n, v in custom.items() if n.lower() not in names} | ours
        is_plain = attempt.url.lower().startswith("http:")
        session = self._plain if is_plain else self._secure
        try:
            return await _post_once(session, attempt.url, headers, body)
        except Exception as fault:
            if not _was_not_heard(fault):
                raise
        return await _AGAIN.copy()(_post_once, session, attempt.url, headers, body)


async def _post_once(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, str, str | None]:
    _MADE.set([])
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        retry_after = None
        if response.status in _RETRY_AFTER_STATUSES:
            retry_after = response.headers.get("Retry-After")
        start = await _read_start(response)
        return response.status, start, retry_after


async def _read_start(response: aiohttp.ClientResponse) -> str:
    """The start of the body as text that Postgres can hold; the rest is read, to a bound."""
    kept = bytearray()
    read = 0
    while read < MAX_RESPONSE:
        chunk = await response.content.read(MAX_RESPONSE - read)
        if not chunk:
            break
        read += len(chunk)
        kept += chunk[: KEPT_RESPONSE - len(kept)]
    else:
        response.close()  # the rest is not wanted, nor is the connection
    return _storable(kept.decode("utf-8", errors="replace"))


def _storable(text: str) -> str:
    """`text` as Postgres can hold it, to a bound."""
    clean = text.replace("\0", "\ufffd").encode("utf-8", errors="replace")
    return clean[:KEPT_RESPONSE].decode("utf-8", errors="ignore")


def _was_not_heard(fault: BaseException) -> bool:
    """Whether a request of this task surely, or as good as surely, reached nobody: the connection
    could not be made, or was one that had lain idle and was found closed."""
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return False  # a look-up took its time, and would again
    if isinstance(fault, aiohttp.ClientConnectorError):
        return not isinstance(fault.os_error, AddressRefused)
    closed = isinstance(fault, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    return closed and not _MADE.get()


# A connection that could not be made, or that a server closed while it lay idle, is worth another
# try at once, and one more a moment later; everything slower is the schedule's.
_AGAIN: Final = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception(_was_not_heard),
    wait=tenacity.wait_random_exponential(multiplier=0.1, max=0.5),
    stop=tenacity.stop_after_attempt(2),
    reraise=True,
)


def _explain(fault: Exception) -> str:
    if isinstance(fault, aiohttp.ClientConnectorError):
        return str(fault.os_error) or type(fault).__name__
    if isinstance(fault, aiohttp.InvalidURL):
        return "the URL is not one that can be requested"
    if isinstance(fault, aiohttp.ClientResponseError):  # whose text shows the whole URL
        return f"the answer is not HTTP: {fault.message}"[:500]
    return f"{type(fault).__name__}: {fault}"[:500]


@contextlib.asynccontextmanager
async def open_sender(
    *, timeout: float, allowed: Sequence[Network], connections: int, allow_http: bool = False
) -> AsyncIterator[Sender]:
    """A sender with at most `connections` connections that reach public addresses by https, and
    those of the networks `allowed` also by http; by http all of them where `allow_http` is set."""
    resolver = Resolver(connections)
    https, http = (
        partial(_vetted_socket, allowed, is_plain) for is_plain in (False, not allow_http)
    )
    try:
        async with (
            _session(connections, resolver, https) as secure,
            _session(connections, resolver, http) as plain,
        ):
            yield Sender(secure, plain, timeout)
    finally:
        await resolver.close()


def _vetted_socket(allowed: Sequence[Network], plain: bool, info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = info
    reason = refusal(address[0], allowed, plain=plain)
    if reason is not None:
        raise AddressRefused(reason)
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setblocking(False)
    if (of_request := _MADE.get(None)) is not None:
        of_request.append(address[0])
    return made


def _session(
    connections: int, resolver: Resolver, socket_factory: Callable[[tuple[Any, ...]], socket.socket]
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            resolver=resolver,
            ttl_dns_cache=30,
            keepalive_timeout=30,
            socket_factory=socket_factory,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
    )
