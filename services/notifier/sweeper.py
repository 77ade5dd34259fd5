"""What no message brings: events, first attempts and retries that the broker or a crash lost.

Postgres says what is due; the queues only make it prompt. Losing every queue loses no webhook.
"""

import time
from typing import Final

import structlog

from services.notifier.dispatcher import Dispatcher
from services.notifier.handlers import EventHandler
from services.notifier.store.backlog import defer_lost, find_endpoints_overdue
from services.notifier.store.endpoints import hold_deliveries, release_deliveries
from services.notifier.store.opening import find_untold_events
from shared import metrics
from shared.db import Database

log = structlog.get_logger()

AT_ONCE: Final = 200
LONGEST: Final = 5.0
"""Seconds for which one look goes on."""


class Sweeper:
    """Looks after what is overdue: makes it due where it is not, and wakes its endpoint's lane."""

    def __init__(
        self,
        database: Database,
        events: EventHandler,
        dispatcher: Dispatcher,
        *,
        lost_after: float,
        retry_grace: float,
    ) -> None:
        self._database = database
        self._events = events
        self._dispatcher = dispatcher
        self._lost_after = lost_after
        self._retry_grace = retry_grace

    async def sweep(self) -> None:
        """Look after all that is overdue, for a while: a service that stops need not wait long."""
        enough = time.monotonic() + LONGEST
        while await self.sweep_once() >= AT_ONCE and time.monotonic() < enough:
            pass

    async def sweep_once(self) -> int:
        """Look after some of what is overdue; returns how much there was, of the kind that most was
        found of."""
        database, lost_after = self._database, self._lost_after
        await self._dispatcher.give_up_old_claims()
        events = await find_untold_events(database, older_than=lost_after, limit=AT_ONCE)
        lost = await defer_lost(database, older_than=lost_after, limit=AT_ONCE)
        held = await hold_deliveries(database, limit=AT_ONCE)
        released = await release_deliveries(database, limit=AT_ONCE)
        overdue = await find_endpoints_overdue(database, grace=self._retry_grace)
        if events or lost or held or released or overdue:
            log.info(
                "swept",
                events=len(events),
                never_attempted=len(lost),
                held=held,
                released=len(released),
                endpoints_overdue=len(overdue),
            )
        metrics.ENDPOINTS_BEHIND.set(len(overdue))
        self._dispatcher.wake_all({*lost, *overdue})
        for endpoint in set(released):  # somebody has enabled it
            self._dispatcher.probe(endpoint)
        # One bad row must not keep the others from being looked after.
        try:
            problems = await self._events.tell(events)
        except Exception as error:
            problems = [error]
        for problem in problems:
            if problem is not None:
                log.error("swept_in_vain", exc_info=problem)
        return max(len(events), len(lost), held, len(released))
