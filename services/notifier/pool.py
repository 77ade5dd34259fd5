"""Connections that are kept between requests: found again, made, bounded in number, closed in time.

Which addresses may be reached is for the maker of sockets to say, and how long anything may take
for the caller.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aiohappyeyeballs import AddrInfoType, start_connection

from services.notifier.addresses import AddressRefused
from services.notifier.resolver import Resolver
from services.notifier.wire import Answer, Connection, Disconnected

KEPT_IDLE: Final = 30.0
"""Seconds."""
HEAD_START: Final = 0.25
"""Seconds that an address has before the next one is tried beside it (RFC 8305)."""

Origin = tuple[str, int]
"""Host and port."""


class Unheard(ConnectionError):  # noqa: N818 - it says what happened
    """The request reached nobody, as far as can be known: no connection could be made, or it went
    to one that had lain idle and ended without a word."""


class Pool:
    """At most `limit` connections, in use, idle or being made; by TLS if there is a `context`."""

    def __init__(
        self,
        *,
        limit: int,
        resolver: Resolver,
        make_socket: Callable[[AddrInfoType], socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        self.closed = False
        self._limit = limit
        self._resolver = resolver
        self._make_socket = make_socket
        self._context = context
        self._places = asyncio.Semaphore(limit)  # first come, first served
        self._making = 0
        self._open: set[Connection] = set()
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self._idle_since: OrderedDict[Connection, tuple[float, Origin]] = OrderedDict()
        self._sweeping: asyncio.TimerHandle | None = None

    async def exchange(self, origin: Origin, request: bytes) -> Answer:
        """Send `request` to `origin`, over an idle connection if there is one.

        Raises Unheard; AddressRefused or Unresolved if there is no address to reach; and what an
        exchange raises.
        """
        async with self._places:
            self._check_open()
            connection = self._take(origin)
            is_new = connection is None
            if connection is None:
                connection = await self._connect(origin)
            try:
                return await connection.exchange(request)
            except Disconnected as fault:
                if is_new or fault.heard:
                    raise
                for other in list(self._idle.get(origin, ())):  # as old, and likely as dead
                    self._drop_idle(other)
                raise Unheard(str(fault)) from fault
            finally:
                self._put(origin, connection)

    def close(self) -> None:
        """Close all connections, those in use too; one that is being made fails when it is."""
        self.closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectionError("webhooks are no longer sent")

    def _take(self, origin: Origin) -> Connection | None:
        """The connection that was used last, which is the likeliest to be still there."""
        while idle := self._idle.get(origin):
            connection = next(reversed(idle))
            self._forget_idle(connection)
            if connection.is_open:
                return connection
            self._open.discard(connection)
        return None

    def _put(self, origin: Origin, connection: Connection) -> None:
        if not connection.is_open:
            self._open.discard(connection)
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(origin, {})[connection] = None
        self._idle_since[connection] = (loop.time(), origin)
        if self._sweeping is None:
            self._sweeping = loop.call_later(KEPT_IDLE, self._sweep)

    def _forget_idle(self, connection: Connection) -> None:
        _, origin = self._idle_since.pop(connection)
        idle = self._idle[origin]
        del idle[connection]
        if not idle:
            del self._idle[origin]

    def _sweep(self) -> None:
        self._sweeping = None
        loop = asyncio.get_running_loop()
        while self._idle_since:
            connection, (since, _) = next(iter(self._idle_since.items()))
            if loop.time() < since + KEPT_IDLE:
                self._sweeping = loop.call_at(since + KEPT_IDLE, self._sweep)
                return
            self._drop_idle(connection)

    def _drop_idle(self, connection: Connection) -> None:
        self._forget_idle(connection)
        self._open.discard(connection)
        connection.close()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle_since:
            self._forget_idle(connection)

    async def _connect(self, origin: Origin) -> Connection:
        # Who is here has a place, so what stands above the limit is idle: the oldest makes room.
        if len(self._open) + self._making >= self._limit:
            self._drop_idle(next(iter(self._idle_since)))
        self._making += 1
        try:
            addresses = await self._resolver.resolve(*origin)
            connection = await self._reach(addresses, origin[0])
        finally:
            self._making -= 1
        self._open.add(connection)
        if self.closed:
            connection.close()
        self._check_open()
        return connection

    async def _reach(self, addresses: Sequence[AddrInfoType], host: str) -> Connection:
        refused: list[AddressRefused] = []

        def make_socket(address: AddrInfoType) -> socket.socket:
            try:
                return self._make_socket(address)
            except AddressRefused as refusal:
                refused.append(refusal)
                raise

        loop = asyncio.get_running_loop()
        try:
            made = await start_connection(
                addresses, happy_eyeballs_delay=HEAD_START, interleave=1, socket_factory=make_socket
            )
            _, connection = await loop.create_connection(
                partial(Connection, self._lost),
                sock=made,
                ssl=self._context,
                # A name's last dot says that it is whole; certificates do without.
                server_hostname=host.rstrip(".") if self._context else None,
            )
        except ssl.SSLCertVerificationError:
            raise  # and would be raised again
        except OSError as fault:
            if len(refused) == len(addresses):
                raise refused[-1] from None
            raise Unheard(str(fault) or type(fault).__name__) from fault
        return connection
