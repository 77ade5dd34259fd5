"""Refusing what is too much before it is parsed.

The gate refuses what comes while the process is late, too; but by then a request has been parsed
and routed, and when thousands a second have to be refused, nothing is left for those that were
accepted.
"""

import re
from email.utils import formatdate
from typing import Final

from services.api.congestion import Congestion
from services.api.errors import respond, saturated
from shared import metrics
from shared.ids import new_id

LONGEST: Final = 16_384
"""Bytes of a request that is worth looking at here."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,5})(?=\r\n|$)")
_NEEDS_MORE: Final = (b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nupgrade:")
_CONNECTION: Final = re.compile(rb"\r\nconnection:(?! *keep-alive(\r\n|$))")


class Shedder:
    """Knows how many requests are under way, and refuses what is too much: everything while the
    process is late, and what comes when `limit` are under way."""

    def __init__(self, congestion: Congestion, limit: int) -> None:
        self._congestion = congestion
        self._limit = limit
        self._under_way = 0
        self._refused = metrics.REQUESTS.labels("POST", 503)

    def refuses(self, now: float) -> bool:
        """Whether a request that comes at `now` is one too many."""
        return self._under_way >= self._limit or self._congestion.refuses(now)

    def began(self) -> None:
        """A request is under way."""
        self._under_way += 1

    def ended(self) -> None:
        """One was answered, or will never be."""
        self._under_way -= 1

    def refusal(self) -> bytes:
        """The answer to a request that is refused."""
        self._refused.inc()
        request_id = new_id("req")
        response = respond(saturated(), request_id)
        body = response.body
        assert isinstance(body, bytes)  # noqa: S101 - it was made of text
        headers = {
            **response.headers,
            "Request-Id": request_id,
            "Server": "florin",
            "Date": formatdate(usegmt=True),
            "Content-Length": str(len(body)),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n".encode() + body


def is_whole(data: bytes) -> bool:
    """Whether `data` is one HTTP/1.1 request from its first byte to its last, beyond doubt: of
    known length, on a connection that is kept (RFC 9112 §6)."""
    if len(data) > LONGEST:
        return False
    head, end, body = data.partition(b"\r\n\r\n")
    if not end or not head.partition(b"\r\n")[0].endswith(b" HTTP/1.1"):
        return False
    if head.count(b"\n") != head.count(b"\r\n"):
        return False
    head = head.lower()
    if any(name in head for name in _NEEDS_MORE) or _CONNECTION.search(head):
        return False
    lengths = _LENGTH.findall(head)
    if head.count(b"content-length") != len(lengths):
        return False
    return len(lengths) <= 1 and len(body) == (int(lengths[0]) if lengths else 0)
