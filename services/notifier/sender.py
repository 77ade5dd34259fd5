"""One attempt over HTTP: what is said, how long it may take, and what is kept of what came of it.

One deadline covers everything; the response is read to a bound, whatever its length says;
redirects are not followed and cookies not kept; and the address of every socket is vetted.
The bytes are `request`'s and `wire`'s, and the connections `pool`'s.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import tenacity
from aiohappyeyeballs import AddrInfoType

from services.notifier.addresses import AddressRefused, Network, refusal
from services.notifier.attempt import Attempt
from services.notifier.policy import Result
from services.notifier.pool import Pool, Unheard
from services.notifier.request import NotRequestable, destination, post
from services.notifier.resolver import Resolver
from services.notifier.signing import signature_headers
from services.notifier.wire import KEPT_RESPONSE, MAX_RESPONSE, Answer, NotHttp
from shared.version import VERSION

__all__ = ["KEPT_RESPONSE", "MAX_RESPONSE", "AddressRefused", "Sender", "open_sender"]

_RETRY_AFTER_STATUSES: Final = (429, 503)
_FRAMING: Final = {"connection", "content-length", "host", "transfer-encoding"}
"""Headers that say how the request is to be read."""


class Sender:
    """Sends attempts through pools of kept-alive connections: one for https, and one for http,
    which reaches less."""

    def __init__(self, secure: Pool, plain: Pool, timeout: float) -> None:
        self._secure = secure
        self._plain = plain
        self._timeout = timeout

    async def send(
        self, attempt: Attempt, custom: Mapping[str, str], *, within: float | None = None
    ) -> Result:
        """Make `attempt`, with the endpoint's `custom` headers, `within` so many seconds.

        Never raises while it is open: a fault is a result without a status code.
        """
        started_at, started = datetime.now(UTC), time.monotonic()
        status = response_start = error = retry_after = None
        timeout = min(self._timeout, within or self._timeout)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._post(attempt, custom)
            status, response_start = answer.status, _storable(answer.body.decode(errors="replace"))
            if status in _RETRY_AFTER_STATUSES:
                retry_after = answer.retry_after
        except TimeoutError:
            error = f"no complete answer within {timeout:g} s"
        except Exception as fault:
            if self._secure.closed:
                raise  # we are stopping: that is no outcome, and the lease will run out
            error = _storable(_explain(fault))
        return Result(
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000),
            status_code=status,
            response_start=response_start,
            error=error,
            retry_after=retry_after,
        )

    async def _post(self, attempt: Attempt, custom: Mapping[str, str]) -> Answer:
        to = destination(attempt.url)
        body = attempt.body.encode()
        request = post(to, _headers(attempt, custom, body), body)
        pool, origin = (self._secure if to.is_tls else self._plain), (to.host, to.port)
        with contextlib.suppress(Unheard):
            return await pool.exchange(origin, request)
        return await _AGAIN.copy()(pool.exchange, origin, request)


def _headers(attempt: Attempt, custom: Mapping[str, str], body: bytes) -> dict[str, str]:
    ours = {
        "Content-Type": "application/json",
        "User-Agent": f"Florin/{VERSION}",
        "Accept-Encoding": "identity",  # the start of the response is kept as it comes
        **signature_headers(attempt.secrets, attempt.event_id, int(time.time()), body),
    }
    taken = {name.lower() for name in ours} | _FRAMING
    theirs = {name: value for name, value in custom.items() if name.lower() not in taken}
    if "accept" not in {name.lower() for name in theirs}:
        theirs["Accept"] = "*/*"
    return theirs | ours


def _storable(text: str) -> str:
    """`text` as Postgres can hold it, to a bound."""
    clean = text.replace("\0", "\ufffd").encode("utf-8", errors="replace")
    return clean[:KEPT_RESPONSE].decode("utf-8", errors="ignore")


# A connection that could not be made, or that a server closed while it lay idle, is worth another
# try at once, and one more a moment later; everything slower is the schedule's.
_AGAIN: Final = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type(Unheard),
    wait=tenacity.wait_random_exponential(multiplier=0.1, max=0.5),
    stop=tenacity.stop_after_attempt(2),
    reraise=True,
)


def _explain(fault: Exception) -> str:
    if isinstance(fault, NotHttp):
        return f"the answer is not HTTP: {fault}"
    if isinstance(fault, OSError | NotRequestable):
        return str(fault) or type(fault).__name__
    return f"{type(fault).__name__}: {fault}"[:500]


@contextlib.asynccontextmanager
async def open_sender(
    *, timeout: float, allowed: Sequence[Network], connections: int, allow_http: bool = False
) -> AsyncIterator[Sender]:
    """A sender with at most `connections` connections that reach public addresses by https, and
    those of the networks `allowed` also by http; by http all of them where `allow_http` is set."""
    resolver = Resolver(connections)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    secure, plain = (
        Pool(
            limit=connections,
            resolver=resolver,
            make_socket=partial(_vetted_socket, allowed, is_plain),
            context=tls,
        )
        for tls, is_plain in ((context, False), (None, not allow_http))
    )
    try:
        yield Sender(secure, plain, timeout)
    finally:
        for pool in (secure, plain):
            pool.close()
        resolver.close()


def _vetted_socket(allowed: Sequence[Network], plain: bool, info: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = info
    reason = refusal(address[0], allowed, plain=plain)
    if reason is not None:
        raise AddressRefused(reason)
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setblocking(False)
    return made
