"""Putting a message aside for a person, with the reason: nothing is dropped, nothing loops."""

import structlog

from shared import metrics
from shared.broker import Outgoing, Publisher
from shared.patience import persist
from shared.topology import DEAD, REASON_HEADER

log = structlog.get_logger()


class DeadLetters:
    """The dead queue of one service."""

    def __init__(self, publisher: Publisher, queue: str) -> None:
        self._publisher = publisher
        self._queue = queue

    async def put(self, body: bytes, reason: str) -> None:
        """Return when the broker has confirmed the dead letter; the caller may then ack."""
        log.error("dead_letter", queue=self._queue, reason=reason)
        letter = Outgoing(DEAD, self._queue, body, {REASON_HEADER: reason[:1000]})
        await persist(self._publisher.publish, [letter])
        metrics.DEAD_LETTERS.labels(self._queue).inc()
