"""A deterministic gateway for development, tests and demonstrations.

The answer to a key is a function of the key and the amount, so that it is the same after a restart.
Amounts of minor units with a meaning, whatever the currency, charged or given back:

| amount | answer |
| --- | --- |
| 99001 | declined: card_declined |
| 99002 | declined: insufficient_funds |
| 99003 | declined: expired_card |
| 99004 | approved when charged; declined when given back: expired_or_canceled_card |
| 99010 | no answer to the first question, approved at the next |
| 99011 | no answer, ever |
| 99012 | approved, three seconds late |
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from services.processor.gateways.base import Approved, Charge, Declined, Outcome, Refund

DECLINES: Final = {
    99001: Declined("card_declined", "The card was declined."),
    99002: Declined("insufficient_funds", "The card has insufficient funds."),
    99003: Declined("expired_card", "The card has expired."),
}
REFUND_DECLINES: Final = {
    99004: Declined("expired_or_canceled_card", "The card can no longer take money back."),
}
SILENT_ONCE: Final = 99010
SILENT: Final = 99011
LATE: Final = 99012
LATE_SECONDS: Final = 3.0
_FOREVER: Final = 86_400.0
_REMEMBERED: Final = 10_000


class SandboxGateway:
    """Answers after `latency_min` to `latency_max` seconds; declines a `failure_rate` of keys."""

    name = "sandbox"

    def __init__(
        self,
        *,
        latency_min: float,
        latency_max: float,
        failure_rate: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._latency_min = latency_min
        self._latency_max = latency_max
        self._failure_rate = failure_rate
        self._sleep = sleep
        self._asked: dict[str, Charge | Refund] = {}

    async def charge(self, charge: Charge) -> Outcome:
        """Decide on `charge` as the table above says."""
        return await self._decide(charge, DECLINES)

    async def refund(self, refund: Refund) -> Outcome:
        """Decide on `refund` as the table above says."""
        return await self._decide(refund, REFUND_DECLINES)

    async def _decide(self, question: Charge | Refund, declines: Mapping[int, Declined]) -> Outcome:
        asked_before = question.key in self._asked
        self._remember(question)
        latency_chance, failure_chance = _chances(question.key)
        latency = self._latency_min + latency_chance * (self._latency_max - self._latency_min)
        if question.amount == LATE:
            latency += LATE_SECONDS
        elif question.amount == SILENT or (question.amount == SILENT_ONCE and not asked_before):
            latency = _FOREVER
        if latency:
            await self._sleep(latency)
        if question.amount in declines:
            return declines[question.amount]
        if failure_chance < self._failure_rate:
            return Declined("processing_error", "The gateway could not process it.")
        return Approved(f"sandbox_{question.key}")

    async def lookup(self, key: str) -> Outcome | None:
        """The answer to the question with that key; None for one that was not asked here."""
        match self._asked.get(key):
            case Charge() as charge:
                return await self.charge(charge)
            case Refund() as refund:
                return await self.refund(refund)
            case None:
                return None

    def _remember(self, question: Charge | Refund) -> None:
        # Only silence depends on having been asked before: nothing else needs a memory.
        if question.amount in (SILENT, SILENT_ONCE):
            if len(self._asked) >= _REMEMBERED:
                self._asked.pop(next(iter(self._asked)))
            self._asked[question.key] = question


def _chances(key: str) -> tuple[float, float]:
    """Two numbers in [0, 1) that depend on the key alone."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return (
        int.from_bytes(digest[:4], "big") / 2**32,
        int.from_bytes(digest[4:], "big") / 2**32,
    )
