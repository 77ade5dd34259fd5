"""What no message brings: outcomes that stay unknown, work that the broker lost, grown counts.

Every task is done once; whoever built the janitor repeats it.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog

from services.processor import store
from services.processor.gateways.base import Outcome
from services.processor.handler import Settler
from services.processor.settlement import to_charge
from shared.broker import queue_depth
from shared.db import Database
from shared.payment import Payment
from shared.topology import PROCESSOR_PAYMENTS

log = structlog.get_logger()

AT_ONCE: Final = 200
FOLD_ABOVE: Final = 50
BACKLOG_PATIENCE: Final = 10
"""How many times longer an open payment may wait while the queue has messages."""


class Janitor:
    """The processor's background work."""

    def __init__(
        self,
        database: Database,
        settler: Settler,
        amqp_url: str,
        *,
        lost_after: float,
        ask_again_min: float,
        ask_again_max: float,
    ) -> None:
        self._database = database
        self._settler = settler
        self._amqp_url = amqp_url
        self._lost_after = lost_after
        self._ask_again_min = ask_again_min
        self._ask_again_max = ask_again_max

    async def clean(self) -> None:
        """Do every task once."""
        await self.ask_again_once(datetime.now(UTC))
        await self.queue_lost_once()
        await store.fold_counts(self._database, more_than=FOLD_ABOVE)

    async def ask_again_once(self, now: datetime) -> int:
        """Ask the gateway about unknown outcomes that are due at `now`; returns how many."""
        due = await store.find_unknown(
            self._database,
            now=now,
            shortest=self._ask_again_min,
            longest=self._ask_again_max,
            limit=AT_ONCE,
        )
        results = await asyncio.gather(
            *(self._ask_again(payment) for payment in due), return_exceptions=True
        )
        for payment, result in zip(due, results, strict=True):
            match result:
                case Exception():  # one bad row must not keep the others from being asked about
                    log.error("unknown_not_settled", payment_id=payment.id, exc_info=result)
                case BaseException():
                    raise result
        return len(due)

    async def queue_lost_once(self) -> list[str]:
        """Queue again what the broker lost; returns the ids of those payments."""
        # While messages wait, they explain most open payments; not one that is much older.
        waiting = await queue_depth(self._amqp_url, PROCESSOR_PAYMENTS)
        lost = await store.queue_lost_payments(
            self._database,
            older_than=self._lost_after * (BACKLOG_PATIENCE if waiting else 1),
            limit=10_000,
        )
        if lost:
            log.warning("lost_payments_queued_again", count=len(lost), first=lost[0])
        return lost

    async def _ask_again(self, payment: Payment) -> None:
        outcome = await self._settler.ask(self._what_became_of(payment))
        log.info("unknown_asked_again", payment_id=payment.id, outcome=type(outcome).__name__)
        await self._settler.settle(payment, outcome)

    async def _what_became_of(self, payment: Payment) -> Outcome:
        """What the gateway says; if it never heard of the payment, it is asked to charge it now,
        with the key that it was to be charged with then."""
        gateway = self._settler.gateway
        answer = await gateway.lookup(payment.id)
        return answer if answer is not None else await gateway.charge(to_charge(payment))
