"""Names to addresses, without one dead name server keeping all look-ups waiting.

The system's resolver blocks a thread for as long as it likes, and an event loop has few of them for
everybody. Here each look-up has a thread of its own, up to a bound; all who want a name wait for
the same one; and what it found, or that it found nothing, is remembered for some seconds.
"""

import asyncio
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from aiohappyeyeballs import AddrInfoType

REMEMBERED: Final = 30.0
"""Seconds for which a name leads where it was found to lead."""
REMEMBERED_UNKNOWN: Final = 5.0
"""Seconds for which a name that was not found counts as not found."""
MOST_REMEMBERED: Final = 10_000


class Unresolved(OSError):  # noqa: N818 - it says what happened
    """The name leads to no address."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look-up came to: addresses, or why there are none."""

    until: float
    """Monotonic seconds."""
    addresses: deque[AddrInfoType]
    reason: str = ""


class Resolver:
    """At most `threads` look-ups at once."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._found: dict[tuple[str, int], _Found] = {}
        self._under_way: dict[tuple[str, int], asyncio.Future[_Found]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """The addresses of `host`, each time another one first; an address is its own.

        Raises Unresolved when there are none.
        """
        if (literal := _literal(host, port)) is not None:
            return [literal]
        found = self._found.get((host, port))
        if found is None or time.monotonic() >= found.until:
            # Who gives up waiting does so for himself alone.
            found = await asyncio.shield(self._ask(host, port))
        if found.reason:
            raise Unresolved(found.reason)
        addresses = list(found.addresses)
        found.addresses.rotate(-1)
        return addresses

    def _ask(self, host: str, port: int) -> asyncio.Future[_Found]:
        key = (host, port)
        if (under_way := self._under_way.get(key)) is not None:
            return under_way

        def remember(look_up: asyncio.Future[_Found]) -> None:
            del self._under_way[key]
            if look_up.cancelled() or look_up.exception():
                return
            if len(self._found) >= MOST_REMEMBERED:
                self._found.clear()
            self._found[key] = look_up.result()

        loop = asyncio.get_running_loop()
        look_up = self._under_way[key] = loop.run_in_executor(self._threads, _find, host, port)
        look_up.add_done_callback(remember)
        return look_up

    def close(self) -> None:
        """Let look-ups that are under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _literal(host: str, port: int) -> AddrInfoType | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)


def _find(host: str, port: int) -> _Found:
    try:
        addresses = deque(_look_up(host, port))
    except (OSError, UnicodeError) as error:  # the latter for a label that is too long
        why = getattr(error, "strerror", None) or error
        reason = f"the name {host} leads nowhere: {why}"
        return _Found(time.monotonic() + REMEMBERED_UNKNOWN, deque(), reason)
    return _Found(time.monotonic() + REMEMBERED, addresses)


def _look_up(host: str, port: int) -> Sequence[AddrInfoType]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
