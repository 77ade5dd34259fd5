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
from services.processor.unknown import is_due
from shared.broker import queue_depth
from shared.db import Database
from shared.errors import Permanent
from shared.payment import Payment
from shared.store import outbox_age
from shared.topology import PROCESSOR_PAYMENTS

log = structlog.get_logger()

AT_ONCE: Final = 200
FOLD_ABOVE: Final = 50


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
        due = [
            payment
            for payment in await store.find_unknown(self._database, AT_ONCE)
            if payment.unknown_since is not None
            and is_due(
                unknown_since=payment.unknown_since,
                last_asked=payment.updated_at,
                now=now,
                shortest=self._ask_again_min,
                longest=self._ask_again_max,
            )
        ]
        results = await asyncio.gather(
            *(self._ask_again(payment) for payment in due), return_exceptions=True
        )
        for payment, result in zip(due, results, strict=True):
            match result:
                case Permanent():
                    log.error("unknown_not_settled", payment_id=payment.id, reason=str(result))
                case BaseException():
                    raise result
        return len(due)

    async def queue_lost_once(self) -> list[str]:
        """Queue again what the broker lost; returns the ids of those payments."""
        # While messages wait, open payments are explained by them.
        if await outbox_age(self._database) > 0:
            return []
        if await queue_depth(self._amqp_url, PROCESSOR_PAYMENTS) > 0:
            return []
        lost = await store.queue_lost_payments(
            self._database, older_than=self._lost_after, limit=10_000
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
