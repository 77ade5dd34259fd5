"""What no message brings: events, first attempts and retries that the broker or a crash lost.

Postgres says what is due; the queues only make it prompt. Losing every queue loses no webhook.
"""

import asyncio
from typing import Final

import structlog

from services.notifier import store
from services.notifier.attempts import Attempts
from services.notifier.handlers import EventHandler
from shared.db import Database

log = structlog.get_logger()

AT_ONCE: Final = 200


class Sweeper:
    """Looks after what is overdue."""

    def __init__(
        self,
        database: Database,
        events: EventHandler,
        attempts: Attempts,
        *,
        lost_after: float,
        retry_grace: float,
    ) -> None:
        self._database = database
        self._events = events
        self._attempts = attempts
        self._lost_after = lost_after
        self._retry_grace = retry_grace

    async def sweep(self) -> None:
        """Look after all that is overdue."""
        while await self.sweep_once() >= AT_ONCE:
            pass

    async def sweep_once(self) -> int:
        """Look after some of what is overdue; returns how much there was."""
        database, lost_after = self._database, self._lost_after
        events = await store.find_untold_events(database, older_than=lost_after, limit=AT_ONCE)
        never = await store.find_never_attempted(database, older_than=lost_after, limit=AT_ONCE)
        overdue = await store.find_overdue(database, grace=self._retry_grace, limit=AT_ONCE)
        if events or never or overdue:
            log.info("swept", events=len(events), never_attempted=len(never), overdue=len(overdue))
        targets = await store.look_up_targets(database, never + overdue)
        results = await asyncio.gather(
            *(self._events.tell(item) for item in events),
            *(self._attempts.attempt(target) for target in targets.values()),
            return_exceptions=True,
        )
        for result in results:
            match result:
                case Exception():  # one bad row must not keep the others from being looked after
                    log.error("swept_in_vain", exc_info=result)
                case BaseException():
                    raise result
        return max(len(events), len(never), len(overdue))
