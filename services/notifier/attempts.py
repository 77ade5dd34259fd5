"""One attempt from claim to record: the only way in which a webhook leaves.

    a place at the endpoint → claim (numbered and leased) → send → judge → record, with what follows

The process may die at any line: what was claimed and not recorded is attempted again when the lease
has run out, under the next number.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import random
from typing import Final

import structlog

from services.notifier import store
from services.notifier.policy import Dead, Delivered, Result, Retry, judge
from services.notifier.sender import Sender
from services.notifier.store import Attempt, Finished, Target
from shared import metrics
from shared.batcher import Batcher
from shared.db import Database
from shared.errors import Misconfigured
from shared.messages import Item
from shared.outbox import OutboxRelay
from shared.patience import persist
from shared.sealing import Seal

log = structlog.get_logger()

LEASE_MARGIN: Final = 10.0
"""Seconds that a lease outlives the deadline of its attempt, for recording the outcome."""


class Places:
    """How many attempts may be under way: in all, and to one endpoint."""

    def __init__(self, total: int, per_endpoint: int) -> None:
        self._total = asyncio.Semaphore(total)
        self._per_endpoint = per_endpoint
        self._endpoints: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @contextlib.asynccontextmanager
    async def at(self, endpoint_id: str) -> AsyncIterator[None]:
        """Wait for a place at the endpoint, then for one of all: who waits takes up none."""
        semaphore, users = self._endpoints.get(
            endpoint_id, (asyncio.Semaphore(self._per_endpoint), 0)
        )
        self._endpoints[endpoint_id] = (semaphore, users + 1)
        try:
            async with semaphore, self._total:
                yield
        finally:
            semaphore, users = self._endpoints[endpoint_id]
            if users == 1:
                del self._endpoints[endpoint_id]
            else:
                self._endpoints[endpoint_id] = (semaphore, users - 1)


@dataclass(slots=True)
class Attempts:
    """Makes attempts; shared by all consumers and the sweeper."""

    database: Database
    relay: OutboxRelay
    sender: Sender
    seal: Seal
    places: Places
    timeout: float
    delays: Sequence[float]
    max_batch: int = 500
    _claims: Batcher[Item, Attempt | None] = field(init=False)
    _records: Batcher[Finished, None] = field(init=False)

    def __post_init__(self) -> None:
        self._claims = Batcher(self._claim, max_size=self.max_batch)
        self._records = Batcher(self._record, max_size=self.max_batch)

    async def attempt(self, target: Target) -> None:
        """Attempt one delivery, unless it is finished, not due, or being attempted elsewhere."""
        async with self.places.at(target.endpoint_id):
            attempt = await self._claims.submit(target.item)
            if attempt is None:
                return
            result = await self._send(attempt)
            now = datetime.now(UTC)
            if attempt.endpoint_deleted and attempt.number > 1:
                verdict: Delivered | Retry | Dead = Dead("the endpoint was deleted")
            else:
                verdict = judge(
                    result,
                    number=attempt.number,
                    delays=self.delays,
                    now=now,
                    rand=random(),  # noqa: S311 - jitter
                )
            await self._records.submit(Finished(attempt, result, verdict))
        outcome = type(verdict).__name__.lower()
        metrics.WEBHOOK_ATTEMPTS.labels(outcome).inc()
        if not isinstance(verdict, Delivered):
            log.info(
                "webhook_attempt_failed",
                delivery_id=attempt.delivery_id,
                event_id=attempt.event_id,
                attempt=attempt.number,
                status_code=result.status_code,
                reason=result.error,
                follows=outcome,
            )

    async def _send(self, attempt: Attempt) -> Result:
        if attempt.endpoint_deleted and attempt.number > 1:
            return Result(datetime.now(UTC), 0, None, error="the endpoint was deleted")
        try:
            secrets = [self.seal.open(secret) for secret in attempt.secrets]
        except Misconfigured as error:  # nothing is sent unsigned; the schedule tries again
            log.error("webhook_cannot_be_signed", reason=str(error))  # noqa: TRY400
            return Result(datetime.now(UTC), 0, None, error=str(error))
        return await self.sender.send(replace(attempt, secrets=secrets))

    async def _claim(self, items: list[Item]) -> Sequence[Attempt | None]:
        claimed = await persist(
            store.claim_attempts,
            self.database,
            sorted(set(items)),
            lease=self.timeout + LEASE_MARGIN,
        )
        # An item that stands twice in the batch gets one attempt, the first.
        return [claimed.pop(item.id, None) for item in items]

    async def _record(self, finished: list[Finished]) -> Sequence[None]:
        ordered = sorted(finished, key=lambda f: (f.attempt.account_id, f.attempt.delivery_id))
        self.relay.offer(await persist(store.record_attempts, self.database, ordered))
        metrics.BATCH_SIZE.labels("record").observe(len(finished))
        return [None] * len(finished)
