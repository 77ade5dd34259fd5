"""From the outbox table to the broker: what was committed is published, at least once.

The relay publishes what this process has just committed, without reading it again. The sweeper
reads what a crash or an outage left behind. Both delete a row only after the broker's confirm;
a message that went out twice finds consumers that do not mind. The relay deletes seldom and many
rows at once: a row that lies there confirmed costs nothing, and each commit does.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from shared import metrics
from shared.batcher import Batcher
from shared.broker import Outgoing, Publisher
from shared.db import Database
from shared.errors import Transient
from shared.store import OutboxRow, delete_published, lock_unpublished

log = structlog.get_logger()

WINDOW: Final = 100
"""Messages published before their confirms are awaited."""
WINDOWS: Final = 4
"""Windows that may wait for their confirms at once: what is committed meanwhile need not wait."""
MAX_HELD: Final = 10_000
"""Rows the relay keeps in memory; beyond it, the table keeps them for the sweeper."""
GRACE: Final = 2.0
"""Seconds that the relay has before the sweeper takes a row for lost."""
BETWEEN_DELETIONS: Final = 0.1
"""Seconds; well within the grace."""


class OutboxRelay:
    """Publishes the outbox of one process, and whatever other processes left behind."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher
        self._held: deque[OutboxRow] = deque()
        self._news = asyncio.Event()
        self._stopping = False
        self._places = asyncio.Semaphore(WINDOWS)
        self._deletions = Batcher[int, None](self._delete, max_size=1000, spacing=BETWEEN_DELETIONS)

    def offer(self, rows: Iterable[OutboxRow]) -> None:
        """Rows just committed. Never blocks and never fails: the table has them."""
        for row in rows:
            if len(self._held) < MAX_HELD:
                self._held.append(row)
        self._news.set()

    async def run(self) -> None:
        """Publish what is offered, until `stop` and until nothing is held."""
        async with asyncio.TaskGroup() as windows:
            while self._held or not self._stopping:
                self._news.clear()
                if not self._held:
                    await self._news.wait()
                    continue
                await self._places.acquire()
                window = [self._held.popleft() for _ in range(min(WINDOW, len(self._held)))]
                windows.create_task(self._relay(window))  # of none, if all was let go of meanwhile
        await self._deletions.drain()

    def stop(self) -> None:
        """Publish what is held, then let `run` return."""
        self._stopping = True
        self._news.set()

    async def _relay(self, window: list[OutboxRow]) -> None:
        try:
            if window:
                await self._publish(window)
        except Transient as error:
            # Let go of everything: the sweeper publishes it when the outage is over.
            log.warning("outbox_left_to_sweeper", held=len(self._held), reason=str(error))
            self._held.clear()
            return
        finally:
            self._places.release()
        for row in window:
            self._deletions.submit(row.id)

    async def _delete(self, ids: list[int]) -> Sequence[None]:
        try:
            await delete_published(self._database, ids)
        except Transient as error:
            log.warning("outbox_left_to_sweeper", confirmed=len(ids), reason=str(error))
        return [None] * len(ids)

    async def sweep(self) -> None:
        """Publish all that was left behind."""
        while await self.sweep_once() == WINDOW:
            pass

    async def sweep_once(self, *, older_than: float = GRACE) -> int:
        """Publish and delete up to one window of old rows; returns how many."""
        async with self._database.transaction() as transaction:
            rows = await lock_unpublished(transaction, older_than=older_than, limit=WINDOW)
            if rows:
                await self._publish(rows)
                await delete_published(transaction, [row.id for row in rows])
        return len(rows)

    async def _publish(self, rows: list[OutboxRow]) -> None:
        await self._publisher.publish(
            [
                Outgoing(
                    row.exchange,
                    row.routing_key,
                    row.body.encode(),
                    json.loads(row.headers) if row.headers else {},
                )
                for row in rows
            ]
        )
        metrics.PUBLISHED.inc(len(rows))
