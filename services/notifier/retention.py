"""Retention: events, their deliveries and attempts are kept for a while, and then forgotten.

What is still to be delivered is kept however old it is; payments, refunds and the ledger always.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.notifier.store.retention import (
    list_accounts,
    mark_pruned,
    prune_events,
    prune_replays,
    told_before,
)
from shared.db import Database

log = structlog.get_logger()

AT_ONCE: Final = 500
LONGEST: Final = 10.0
"""Seconds for which one run goes on; the next goes on where it was."""


class Pruner:
    """Forgets what is older than `retention` seconds; nothing when that is 0."""

    def __init__(self, database: Database, retention: float, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._retention = retention
        self._clock = clock

    async def run(self) -> None:
        """Forget what is old enough, for a while: a service that stops need not wait long."""
        if not self._retention:
            return
        told = await told_before(self._database)
        if told is None:
            return
        before = min(told, self._clock() - timedelta(seconds=self._retention))
        await mark_pruned(self._database, before)  # first: whoever verifies must not miss them
        enough = time.monotonic() + LONGEST
        for account_id in await list_accounts(self._database):
            await self._prune(account_id, before, enough)
        await prune_replays(self._database, before)

    async def _prune(self, account_id: str, before: datetime, enough: float) -> None:
        after, total = "", 0
        while time.monotonic() < enough:
            last, deleted = await prune_events(
                self._database, account_id, after=after, before=before, limit=AT_ONCE
            )
            total += deleted
            if last is None:
                break
            after = last
        if total:
            log.info("events_pruned", account_id=account_id, events=total)
