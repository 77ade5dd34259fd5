"""Names to addresses, without one dead name server keeping all look-ups waiting.

The system's resolver blocks a thread for as long as it likes, and an event loop has few of them for
everybody. Here each look-up has a thread of its own, up to a bound, and a name that was not found
is not asked about again at once.
"""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

REMEMBERED: Final = 5.0
"""Seconds for which a name that was not found counts as not found."""
MOST_REMEMBERED: Final = 10_000


class Resolver(AbstractResolver):
    """At most `threads` look-ups at once."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._unknown: dict[tuple[str, int], tuple[float, str]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError when there are none."""
        until, reason = self._unknown.get((host, family), (0.0, ""))
        if time.monotonic() < until:
            raise OSError(None, reason)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        except OSError as error:
            if len(self._unknown) >= MOST_REMEMBERED:
                self._unknown.clear()
            reason = f"the name {host} leads nowhere: {error.strerror or error}"
            self._unknown[host, family] = (time.monotonic() + REMEMBERED, reason)
            raise OSError(None, reason) from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let look-ups that are under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(
    host: str, port: int, family: int
) -> list[tuple[socket.AddressFamily, int, int, str, tuple[object, ...]]]:
    return socket.getaddrinfo(  # type: ignore[return-value]
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
