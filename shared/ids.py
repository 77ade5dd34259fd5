"""Identifiers that sort by the time they were made.

An id is a prefix that names the kind and a UUIDv7 (RFC 9562) in hex: `pay_0193…`. The first 48 bits
are milliseconds and the next 12 are the fraction of that millisecond (RFC 9562 §6.2, method 3), so
that a primary key `(account_id, id)` is also the newest-first order of a list, and rows of one
moment share a page of the index. The remaining 62 bits are random.
"""

import os
import time
from datetime import datetime
from typing import Final

_RAND_MASK: Final = (1 << 62) - 1
_VARIANT: Final = 0b10 << 62
_DRAWN_AT_ONCE: Final = 256


def uuid7_hex(now_ns: int, rand: int) -> str:
    """The 32 hex digits of a UUIDv7 for `now_ns` (Unix nanoseconds) and at least 62 random bits."""
    milliseconds, nanoseconds = divmod(now_ns, 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    high = (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | fraction
    return f"{high << 64 | _VARIANT | rand & _RAND_MASK:032x}"


class _Randomness:
    """The system's random numbers, fetched many at a time. A forked child starts anew."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        os.register_at_fork(after_in_child=self._numbers.clear)

    def draw(self) -> int:
        """64 random bits."""
        try:
            return self._numbers.pop()
        except IndexError:
            drawn = memoryview(os.urandom(8 * _DRAWN_AT_ONCE)).cast("Q").tolist()
            self._numbers.extend(drawn)
            return self._numbers.pop()


_RANDOM: Final = _Randomness()


def new_id(prefix: str) -> str:
    """A fresh id, such as `pay_0193e5c8b1f27a3c9d0e4f5a6b7c8d9e`."""
    return f"{prefix}_{uuid7_hex(time.time_ns(), _RANDOM.draw())}"


def id_at(prefix: str, moment: datetime) -> str:
    """Where an id of `prefix` that is made at `moment` sorts: no id made before it comes after."""
    return f"{prefix}_{max(0, int(moment.timestamp() * 1000)):012x}"
