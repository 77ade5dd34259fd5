"""One envelope of payments, from claim to ack.

    claim (one commit) → ask the gateway, outside any transaction → settle (one commit)

All envelopes that the consumers hold share two batchers, so what is claimed or settled at one
moment is written by one statement. A payment that the gateway keeps waiting holds up its own
envelope's ack, and nobody's settlement. The process may die at any line: the message comes again, a
claimed payment is asked about again with the same key, and a settled one is left alone.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from services.processor import store
from services.processor.gateways.base import Gateway, Outcome, Unknown
from services.processor.settlement import Settlement, StillUnknown, begun, decide, to_charge
from shared import metrics
from shared.batcher import Batcher
from shared.broker import Delivery
from shared.db import Database
from shared.dead_letters import DeadLetters
from shared.errors import Malformed, Permanent
from shared.messages import PAYMENTS, Item, decode, encode
from shared.outbox import OutboxRelay
from shared.patience import persist
from shared.payment import Payment
from shared.states import PaymentStatus

log = structlog.get_logger()


@dataclass(slots=True)
class Settler:
    """Claims, asks and settles; shared by all consumers and the janitor."""

    database: Database
    relay: OutboxRelay
    gateway: Gateway
    gateway_timeout: float
    gateway_concurrency: int
    max_batch: int
    _claims: Batcher[Item, Payment | None] = field(init=False)
    _settlements: Batcher[Settlement | StillUnknown, None] = field(init=False)
    _questions: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._claims = Batcher(self._claim, max_size=self.max_batch)
        self._settlements = Batcher(self._settle, max_size=self.max_batch)
        self._questions = asyncio.Semaphore(self.gateway_concurrency)

    async def process(self, item: Item) -> None:
        """Bring one payment to its outcome, or leave it unknown for the janitor.

        Returns when what is known is committed. Raises Permanent when the payment does not exist
        or cannot be written.
        """
        payment = await self._claims.submit(item)
        if payment is None:
            raise Malformed(f"there is no payment {item.id} in account {item.account_id}")
        if payment.status is PaymentStatus.PROCESSING and payment.unknown_since is None:
            await self.settle(payment, await self.ask(self.gateway.charge(to_charge(payment))))

    async def ask(self, question: Awaitable[Outcome]) -> Outcome:
        """The gateway's answer to `question`; Unknown when it takes over `gateway_timeout` s."""
        async with self._questions:
            try:
                async with asyncio.timeout(self.gateway_timeout):
                    return await question
            except TimeoutError:
                return Unknown(f"no answer within {self.gateway_timeout} s")
            except Exception as error:
                log.exception("gateway_failed", gateway=self.gateway.name)
                return Unknown(f"the gateway's adapter failed: {type(error).__name__}")

    async def settle(self, payment: Payment, outcome: Outcome) -> None:
        """Write what `outcome` means for `payment`. Raises Permanent when it cannot be written."""
        decision = decide(payment, outcome, self.gateway.name, datetime.now(UTC))
        await self._settlements.submit(decision)

    async def drain(self) -> None:
        """Return when nothing is being written."""
        await self._claims.drain()
        await self._settlements.drain()

    async def _claim(self, items: list[Item]) -> Sequence[Payment | None]:
        ordered = sorted(set(items))
        loaded = await persist(store.load_payments, self.database, ordered)
        pending = [
            loaded[item.id]
            for item in ordered
            if item.id in loaded and loaded[item.id].status is PaymentStatus.PENDING
        ]
        if pending:
            now = datetime.now(UTC)
            events = [begun(payment, now) for payment in pending]
            _, messages = await persist(store.begin_payments, self.database, events, now)
            self.relay.offer(messages)
            # Whether this statement moved them or another processor did a moment ago, they are no
            # longer pending; and asking the gateway twice with one key is asking once.
            loaded |= {p.id: replace(p, status=PaymentStatus.PROCESSING) for p in pending}
        metrics.BATCH_SIZE.labels("claim").observe(len(items))
        return [loaded.get(item.id) for item in items]

    async def _settle(self, decisions: list[Settlement | StillUnknown]) -> Sequence[None]:
        settled = sorted(
            (d for d in decisions if isinstance(d, Settlement)),
            key=lambda s: (s.payment.account_id, s.payment.id),
        )
        unknown = sorted(
            (d.payment for d in decisions if isinstance(d, StillUnknown)),
            key=lambda p: (p.account_id, p.id),
        )
        if settled:
            moved, messages = await persist(
                store.settle_payments, self.database, _one_each(settled)
            )
            self.relay.offer(messages)
            for settlement in settled:
                if settlement.payment.id in moved:
                    metrics.PAYMENTS_SETTLED.labels(settlement.payment.status).inc()
        if unknown:
            await persist(store.mark_unknown, self.database, unknown)
            metrics.PAYMENTS_UNKNOWN.inc(len(unknown))
        metrics.BATCH_SIZE.labels("settle").observe(len(decisions))
        return [None] * len(decisions)


class PaymentHandler:
    """What a consumer of processor.payments does with a message."""

    def __init__(self, settler: Settler, dead_letters: DeadLetters) -> None:
        self._settler = settler
        self._dead_letters = dead_letters

    async def handle(self, delivery: Delivery) -> None:
        """Process every payment of the envelope; what cannot be goes to the dead queue, alone."""
        try:
            items = decode(delivery.body, PAYMENTS)
        except Malformed as error:
            await self._dead_letters.put(delivery.body, str(error))
            return
        results = await asyncio.gather(
            *(self._settler.process(item) for item in items), return_exceptions=True
        )
        for item, result in zip(items, results, strict=True):
            match result:
                case Permanent():
                    await self._dead_letters.put(encode(PAYMENTS, [item]).encode(), str(result))
                case BaseException():
                    raise result


def _one_each(settlements: list[Settlement]) -> list[Settlement]:
    """The first settlement of each payment: the same message may have come twice at once."""
    return list({s.payment.id: s for s in reversed(settlements)}.values())[::-1]
