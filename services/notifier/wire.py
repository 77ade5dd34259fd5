"""HTTP/1.1 on one connection: a request is written, and of its answer the start is taken.

It knows no URL, no address and no clock: who connects, for how long an answer is waited for and
which connection is used again is left to others. llhttp reads what comes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

MAX_HEAD: Final = 64 * 1024
"""Bytes of an answer within which its head must end; informational ones before it count."""
MAX_RESPONSE: Final = 64 * 1024
"""Bytes after those that are taken of an answer, with the framing of chunks."""
KEPT_RESPONSE: Final = 4 * 1024
"""Bytes that are kept of its body."""


class NotHttp(Exception):  # noqa: N818 - it says what happened
    """What came cannot be read as an answer. Its text never holds any of that."""


class Disconnected(ConnectionError):  # noqa: N818 - it says what happened
    """The connection ended before the answer did; `heard` says whether any of that had come."""

    def __init__(self, *, heard: bool, reason: Exception | None) -> None:
        when = "within its answer" if heard else "before it answered"
        super().__init__(
            f"the server closed the connection {when}" + (f": {reason}" if reason else "")
        )
        self.heard = heard


class Answer(Struct, frozen=True):
    """What is taken of an answer."""

    status: int
    retry_after: str | None
    """As it stands there."""
    body: bytes
    """Its start, of KEPT_RESPONSE bytes at most."""


class Connection(asyncio.Protocol):
    """One connection, for one exchange at a time; `lost` is told when it has ended."""

    _transport: asyncio.Transport

    def __init__(self, lost: Callable[["Connection"], object]) -> None:
        self._lost = lost
        self._closed = False
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser = HttpResponseParser(self)
        # What servers and proxies that lived through years of browsers are known to write.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )

    @property
    def is_open(self) -> bool:
        """Whether it may carry another exchange."""
        return not self._closed and not self._transport.is_closing()

    async def exchange(self, request: bytes) -> Answer:
        """Write `request`, and wait for as long as the caller does for its answer.

        Raises Disconnected and NotHttp. A connection whose exchange failed or was given up is
        closed: what may yet come on it answers nothing.
        """
        if not self.is_open:
            raise Disconnected(heard=False, reason=None)
        self._heard = 0
        self._status: int | None = None
        self._retry_after: str | None = None
        self._has_end = False
        self._body = b""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._transport.write(request)
        try:
            return await waiter
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it at once; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._transport.abort()  # to close TLS politely would be to wait for the other side

    # What the event loop tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It may carry an exchange."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        waiter = self._waiter
        if waiter is None:
            self.close()  # nobody asked
            return
        self._heard += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.close()
            self._fail(NotHttp(str(error)))  # unless the answer was whole, and this came after it
        if waiter.done():
            return
        if self._status is None and self._heard > MAX_HEAD:
            self.close()
            self._fail(NotHttp(f"its head does not end within {MAX_HEAD} bytes"))
        elif self._heard > MAX_HEAD + MAX_RESPONSE:
            self.close()  # the rest is not wanted, nor is the connection
            self._finish()

    def connection_lost(self, reason: Exception | None) -> None:
        """There is no more; some answers end just so."""
        self._closed = True
        if self._waiter is not None:
            if self._status is not None and not self._has_end and reason is None:
                self._finish()
            else:
                self._fail(Disconnected(heard=self._heard > 0, reason=reason))
        self._lost(self)

    # What the parser tells

    def on_message_begin(self) -> None:
        """An answer begins, or something behind one."""
        if self._waiter is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if self._status is not None:
            return
        match name.lower():
            case b"retry-after":
                self._retry_after = self._retry_after or value.decode("utf-8", errors="replace")
            case b"content-length":
                self._has_end = True
            case b"transfer-encoding":
                self._has_end = value.lower().rstrip().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        """The head has ended: of the answer, or of one that says that it will come."""
        status = self._parser.get_status_code()
        if status == 101 or not 100 <= status <= 199:
            self._status = status
        else:
            self._retry_after, self._has_end = None, False

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        if len(self._body) < KEPT_RESPONSE:
            self._body += piece[: KEPT_RESPONSE - len(self._body)]

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._status is None:
            return
        # A server may answer what it has not read yet: the rest of that would lead the next one. It
        # shows as far as this process still holds it; what the system took is the server's to skip.
        if not self._parser.should_keep_alive() or self._transport.get_write_buffer_size():
            self.close()
        self._finish()

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done() and self._status is not None:
            waiter.set_result(Answer(self._status, self._retry_after, self._body))

    def _fail(self, fault: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(fault)
