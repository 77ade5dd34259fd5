"""What no message brings: outcomes that stay unknown, and work that the broker lost.

Every task is done once; whoever built the janitor repeats it.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final, Generic

import structlog

from services.processor.settlement import S
from services.processor.settler import Settler
from services.processor.store.unsettled import find_oldest_open, find_unknown, queue_lost
from services.processor.work import Work
from shared.broker import queue_depth
from shared.db import Database
from shared.messages import Item

log = structlog.get_logger()

AT_ONCE: Final = 200
BACKLOG_PATIENCE: Final = 10
"""How many times longer open work may wait while the queue has messages."""


class Janitor(Generic[S]):
    """The background work on payments, or on refunds."""

    def __init__(
        self,
        database: Database,
        settler: Settler[S],
        amqp_url: str,
        *,
        lost_after: float,
        ask_again_min: float,
        ask_again_max: float,
    ) -> None:
        self._database = database
        self._settler: Settler[S] = settler
        self._work: Work[S] = settler.work
        self._amqp_url = amqp_url
        self._lost_after = lost_after
        self._ask_again_min = ask_again_min
        self._ask_again_max = ask_again_max

    async def clean(self) -> None:
        """Do every task once."""
        await self.ask_again_once(datetime.now(UTC))
        await self.queue_lost_once()

    async def ask_again_once(self, now: datetime) -> int:
        """Ask the gateway about unknown outcomes that are due at `now`; returns how many."""
        due = await find_unknown(
            self._database,
            self._work.table,
            now=now,
            shortest=self._ask_again_min,
            longest=self._ask_again_max,
            limit=AT_ONCE,
        )
        results = await asyncio.gather(
            *(self._ask_again(item) for item in due), return_exceptions=True
        )
        for item, result in zip(due, results, strict=True):
            match result:
                case Exception():  # one bad row must not keep the others from being asked about
                    log.error("unknown_not_settled", id=item.id, exc_info=result)
                case BaseException():
                    raise result
        return len(due)

    async def queue_lost_once(self) -> list[str]:
        """Queue again what the broker lost; returns the ids."""
        table, lost_after = self._work.table, self._lost_after
        if await find_oldest_open(self._database, table, older_than=lost_after) is None:
            return []
        # While messages wait, they explain most open work; not what is much older.
        waiting = await queue_depth(self._amqp_url, self._work.queue)
        lost = await queue_lost(
            self._database,
            table,
            older_than=lost_after * (BACKLOG_PATIENCE if waiting else 1),
            limit=10_000,
        )
        if lost:
            log.warning("lost_work_queued_again", kind=table, count=len(lost), first=lost[0])
        return lost

    async def _ask_again(self, item: Item) -> None:
        outcome = await self._settler.ask_again(item)
        log.info("unknown_asked_again", id=item.id, outcome=type(outcome).__name__)
