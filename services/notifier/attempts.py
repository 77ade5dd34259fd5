"""One attempt from claim to record: the only way in which a webhook leaves.

    claim (numbered and leased) → send → judge → record, with what follows → what it says about the
    endpoint

The process may die at any line: what was claimed and not recorded is attempted again when the lease
has run out, under the next number.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import random
from typing import Final, assert_never

import structlog
from msgspec.structs import replace

from services.notifier.attempt import Attempt, Claim
from services.notifier.policy import (
    Dead,
    Delivered,
    Disable,
    Failing,
    Health,
    Recovered,
    Result,
    Verdict,
    examine,
    judge,
)
from services.notifier.sender import Sender
from services.notifier.store.attempts import Finished, claim_attempts, record_attempts
from services.notifier.store.endpoints import (
    disable_endpoint,
    hold_deliveries,
    mark_failing,
    mark_recovered,
)
from shared import metrics
from shared.batcher import Batcher
from shared.db import Database
from shared.errors import Misconfigured
from shared.event import make_event
from shared.event_types import ENDPOINT_DISABLED
from shared.ids import new_id
from shared.messages import Item
from shared.outbox import OutboxRelay
from shared.patience import persist
from shared.sealing import Seal
from shared.store import insert_event
from shared.webhook_endpoint import webhook_endpoint_object

log = structlog.get_logger()

LEASE_MARGIN: Final = 10.0
"""Seconds that a lease outlives the deadline of its attempt, for recording the outcome."""
SHORTEST: Final = 1.0
"""Seconds; an attempt that would have less is not begun."""
FRESH: Final = 1.0
"""Seconds for which an attempt that waits here may be made as it was claimed: a merchant may change
the endpoint meanwhile."""
HELD_AT_ONCE: Final = 1000
BETWEEN_RECORDS: Final = 0.1
"""Seconds between two writings of what came of attempts: nobody waits for them, and a notifier that
is killed meanwhile leaves a delivery that is sent twice, as it does a moment before it."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Attempts:
    """Makes attempts."""

    database: Database
    relay: OutboxRelay
    sender: Sender
    seal: Seal
    timeout: float
    delays: Sequence[float]
    disable_after: float
    """Seconds of failing."""
    clock: Callable[[], datetime] = utc_now
    max_batch: int = 500
    _claims: Batcher[tuple[Item, datetime | None], Attempt | None] = field(init=False)
    _records: Batcher[Finished, None] = field(init=False)
    _findings: Batcher[tuple[Attempt, Health], None] = field(init=False)

    def __post_init__(self) -> None:
        self._claims = Batcher(self._claim, max_size=self.max_batch)
        self._records = Batcher(self._record, max_size=self.max_batch, spacing=BETWEEN_RECORDS)
        # One list after the other: what is found first is written first.
        self._findings = Batcher(self._note, max_size=self.max_batch)

    @property
    def lease(self) -> float:
        """Seconds for which an attempt is claimed."""
        return self.timeout + LEASE_MARGIN

    async def attempt(self, item: Item, claim: Claim | None = None) -> Finished | None:
        """Attempt one delivery; None when it is finished, not due, held, or attempted elsewhere.

        `claim` is the caller's, if it has one. What came of it is not written down yet: give it to
        `record`.
        """
        if claim is None or time.monotonic() - claim.asked_at > FRESH:
            claim = await self._claim_one(item, claim)
        if claim is None:
            return None
        attempt = claim.attempt
        # What is sent must have ended, and been recorded, while the lease lasts: that began at some
        # time after it was asked for.
        left = self.timeout + LEASE_MARGIN / 2 - (time.monotonic() - claim.asked_at)
        if left < SHORTEST:
            return None
        result = await self._send(attempt, within=min(left, self.timeout))
        now = self.clock()
        verdict: Verdict
        if attempt.abandoned:
            verdict = Dead(attempt.abandoned, has_letter=False)
        else:
            verdict = judge(
                result,
                number=attempt.number,
                delays=self.delays,
                now=now,
                rand=random(),  # noqa: S311 - jitter
            )
        return Finished(attempt, result, verdict)

    async def record(self, finished: Finished) -> None:
        """Write down what came of an attempt, and what it says about the endpoint."""
        await self._records.submit(finished)
        self._tell(finished)
        health = examine(
            finished.result,
            failing_since=finished.attempt.failing_since,
            now=self.clock(),
            disable_after=self.disable_after,
        )
        if health is not None:
            await self._findings.submit((finished.attempt, health))

    def _tell(self, finished: Finished) -> None:
        outcome = type(finished.verdict).__name__.lower()
        metrics.WEBHOOK_ATTEMPTS.labels(outcome).inc()
        if not isinstance(finished.verdict, Delivered):
            log.info(
                "webhook_attempt_failed",
                delivery_id=finished.attempt.delivery_id,
                event_id=finished.attempt.event_id,
                attempt=finished.attempt.number,
                status_code=finished.result.status_code,
                reason=finished.result.error,
                follows=outcome,
            )

    async def _send(self, attempt: Attempt, within: float) -> Result:
        if attempt.abandoned:
            return Result(self.clock(), 0, None, error=attempt.abandoned, sent=False)
        try:
            secrets = [self.seal.open(secret) for secret in attempt.secrets]
            sealed = attempt.custom_headers
            custom = json.loads(self.seal.open(sealed)) if sealed else {}
        except Misconfigured as error:  # nothing is sent unsigned; the schedule tries again
            log.error("webhook_cannot_be_signed", reason=str(error))  # noqa: TRY400
            return Result(self.clock(), 0, None, error=str(error), sent=False)
        return await self.sender.send(replace(attempt, secrets=secrets), custom, within=within)

    async def _claim_one(self, item: Item, held: Claim | None) -> Claim | None:
        asked_at = time.monotonic()
        attempt = await self._claims.submit((item, held.attempt.lease_until if held else None))
        return Claim(attempt, asked_at) if attempt is not None else None

    async def _claim(self, asked: list[tuple[Item, datetime | None]]) -> Sequence[Attempt | None]:
        claimed = await persist(claim_attempts, self.database, dict(asked), lease=self.lease)
        # An item that stands twice in the batch gets one attempt, the first.
        return [claimed.pop(item.id, None) for item, _ in asked]

    async def _record(self, finished: list[Finished]) -> Sequence[None]:
        ordered = sorted(finished, key=lambda f: (f.attempt.account_id, f.attempt.delivery_id))
        self.relay.offer(await persist(record_attempts, self.database, ordered))
        metrics.BATCH_SIZE.labels("record").observe(len(finished))
        return [None] * len(finished)

    async def _note(self, findings: list[tuple[Attempt, Health]]) -> Sequence[None]:
        """Write down what attempts said about endpoints: of each the last word."""
        failing, well = [], []
        last = {Item(a.account_id, a.endpoint_id): (a, health) for a, health in findings}
        for endpoint, (attempt, health) in last.items():
            match health:
                case Failing():
                    failing.append(endpoint)
                case Recovered():
                    well.append(endpoint)
                case Disable(reason):
                    await persist(self._disable, endpoint, attempt, reason)
                case _:
                    assert_never(health)
        if failing:
            await persist(mark_failing, self.database, sorted(failing), self.clock())
        if well:
            await persist(mark_recovered, self.database, sorted(well))
        return [None] * len(findings)

    async def _disable(self, endpoint: Item, attempt: Attempt, reason: str) -> None:
        """Disable an endpoint, if it still is as it was for the attempt; tell the account's others,
        and hold what waits for it: some of it now, and the sweeper the rest."""
        async with self.database.transaction() as transaction:
            disabled = await disable_endpoint(
                transaction,
                endpoint,
                reason=reason[:500],
                url=attempt.url,
                failing_since=attempt.failing_since,
            )
            if disabled is None:
                return
            id_ = new_id("evt")
            subject = webhook_endpoint_object(disabled)
            event = make_event(
                endpoint.account_id, ENDPOINT_DISABLED, id_, subject, utc_now(), id_=id_
            )
            message = await insert_event(transaction, event, endpoint_id=endpoint.id)
        self.relay.offer([message])
        log.warning("endpoint_disabled", endpoint_id=endpoint.id, reason=reason)
        await hold_deliveries(self.database, limit=HELD_AT_ONCE)
