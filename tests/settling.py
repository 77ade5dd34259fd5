"""The processor without its processes: settlers and handlers on a database, and a gateway that
answers as the test says."""

import asyncio
from collections.abc import Sequence
from typing import Any

from services.api.reserve import Reserver
from services.api.store.payments import insert_payments
from services.api.store.refunds import NewRefund
from services.processor.gateways.base import Approved, Charge, Outcome, Refund
from services.processor.handler import EnvelopeHandler
from services.processor.janitor import Janitor
from services.processor.settlement import S
from services.processor.settler import Asking, Settler
from services.processor.work import PAYMENT_WORK, REFUND_WORK, Work
from shared import payment, refund
from shared.broker import Delivery, Publisher
from shared.db import Database
from shared.dead_letters import DeadLetters
from shared.ids import new_id
from shared.messages import Item, encode
from shared.outbox import OutboxRelay
from shared.topology import PROCESSOR_DEAD
from tests.integration.test_accept import new_payment

PaymentSettler = Settler[payment.Payment]
RefundSettler = Settler[refund.Refund]
PaymentHandler = EnvelopeHandler[payment.Payment]
RefundHandler = EnvelopeHandler[refund.Refund]


class Gateway:
    """A gateway that answers as the test says and remembers what it was asked."""

    name = "scripted"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self.known: set[str] = set()

    async def charge(self, charge: Charge) -> Outcome:
        return await self._answer(charge.key)

    async def refund(self, refund: Refund) -> Outcome:
        return await self._answer(refund.key)

    async def lookup(self, key: str) -> Outcome | None:
        return await self._answer(key) if key in self.known else None

    async def _answer(self, key: str) -> Outcome:
        self.asked.append(key)
        self.known.add(key)
        await asyncio.sleep(0)
        return self.outcomes.get(key, Approved(f"ref_{key}"))


def make_settler(
    work: Work[S], database: Database, publisher: Publisher, gateway: Gateway
) -> Settler[S]:
    """A settler with small limits."""
    asking = Asking(gateway, 0.5, asyncio.Semaphore(100))
    return Settler(work, database, OutboxRelay(database, publisher), asking, max_batch=50)


def make_handler(settler: Settler[S], publisher: Publisher) -> EnvelopeHandler[S]:
    """What a consumer does with a message."""
    return EnvelopeHandler(settler, DeadLetters(publisher, PROCESSOR_DEAD))


def make_janitor(database: Database, settler: Settler[S], amqp_url: str) -> Janitor[S]:
    """A janitor that asks again after 5 s and takes work for lost after 60 s."""
    return Janitor(database, settler, amqp_url, lost_after=60, ask_again_min=5, ask_again_max=3600)


def make_reserver(database: Database, publisher: Publisher) -> Reserver:
    """What the API does with a request for a refund."""
    relay = OutboxRelay(database, publisher)
    return Reserver(database, relay, max_batch=200, max_waiting=2000)


async def accept(database: Database, count: int, **changes: Any) -> list[Item]:
    """Payments that are accepted, and the references to them."""
    payments = [new_payment(**changes) for _ in range(count)]
    await insert_payments(database, payments)
    return [Item(payment.account_id, payment.id) for payment in payments]


def new_refund(of: Item, amount: int | None = None, key: str | None = None) -> NewRefund:
    """A valid request for a refund."""
    return NewRefund(
        account_id=of.account_id,
        id=new_id("re"),
        payment_id=of.id,
        amount=amount,
        reason=None,
        metadata="{}",
        idempotency_key=key,
        request_fingerprint=f"{of.id} {amount}".encode() if key else None,
        request_id=new_id("req"),
    )


def message(items: Sequence[Item], work: Work[S] = PAYMENT_WORK) -> Delivery:  # type: ignore[assignment]
    """The message that brings `items`."""
    return Delivery(encode(work.kind, items).encode(), {}, redelivered=False)


__all__ = ["PAYMENT_WORK", "REFUND_WORK"]
