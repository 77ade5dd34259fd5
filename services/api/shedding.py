"""Refusing what is too much before it is parsed.

The gate refuses what comes while the process is late, too; but by then a request has been parsed
and routed, and when thousands a second have to be refused, nothing is left for those that were
accepted.
"""

from services.api.congestion import Congestion
from services.api.errors import respond, saturated
from services.api.plain import write
from shared import metrics
from shared.ids import new_id


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
        response.headers["Request-Id"] = request_id
        response.headers["Server"] = "florin"
        return write(response)
