"""The two kinds of work: payments and refunds, as the settler and the janitor see them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Generic, Protocol

from services.processor.gateways.base import Gateway, Outcome
from services.processor.settlement import (
    Answer,
    S,
    Settlement,
    StillUnknown,
    charge_for,
    decide_payment,
    decide_refund,
    event_of_beginning,
    refund_for,
)
from services.processor.store.payments import begin_payments, load_payments, settle_payments
from services.processor.store.refunds import begin_refunds, load_refunds, settle_refunds
from services.processor.store.unsettled import Table
from shared.db import Database
from shared.messages import PAYMENTS, REFUNDS, Item
from shared.payment import Payment
from shared.refund import Refund
from shared.states import PaymentStatus, RefundStatus
from shared.store import OutboxRow
from shared.topology import PROCESSOR_PAYMENTS, PROCESSOR_REFUNDS


class Work(Protocol, Generic[S]):
    """What is the same in settling any kind, and different for each."""

    table: Table
    kind: str
    """Of its messages."""
    queue: str
    question: str
    """What the gateway is asked first."""

    async def load(self, database: Database, items: Sequence[Item]) -> dict[str, S]:
        """What `items` refer to, by id."""
        ...

    def begun(self, subject: S, now: datetime) -> S:
        """It, in processing since `now`."""
        ...

    async def begin(self, database: Database, begun: Sequence[S], now: datetime) -> list[OutboxRow]:
        """Move them from pending to processing; returns the messages that tell of it."""
        ...

    async def ask(self, gateway: Gateway, subject: S) -> Outcome:
        """The one question about it."""
        ...

    def decide(
        self, subject: S, answer: Answer, gateway: str, now: datetime
    ) -> Settlement[S] | StillUnknown[S]:
        """What the answer means."""
        ...

    async def settle(
        self, database: Database, settlements: Sequence[Settlement[S]]
    ) -> tuple[set[str], list[OutboxRow]]:
        """Write outcomes; returns the ids of those that moved, and the messages."""
        ...


class PaymentWork:
    """Money from a customer to the merchant."""

    table: Table = "payments"
    kind = PAYMENTS
    queue = PROCESSOR_PAYMENTS
    question = "charge"

    async def load(self, database: Database, items: Sequence[Item]) -> dict[str, Payment]:
        """The payments."""
        return await load_payments(database, items)

    def begun(self, subject: Payment, now: datetime) -> Payment:
        """It, in processing since `now`."""
        return replace(subject, status=PaymentStatus.PROCESSING, updated_at=now)

    async def begin(
        self, database: Database, begun: Sequence[Payment], now: datetime
    ) -> list[OutboxRow]:
        """Each with its event."""
        events = [event_of_beginning(payment, now) for payment in begun]
        _, messages = await begin_payments(database, events, now)
        return messages

    async def ask(self, gateway: Gateway, subject: Payment) -> Outcome:
        """Take the money."""
        return await gateway.charge(charge_for(subject))

    def decide(
        self, subject: Payment, answer: Answer, gateway: str, now: datetime
    ) -> Settlement[Payment] | StillUnknown[Payment]:
        """What the answer means."""
        return decide_payment(subject, answer, gateway, now)

    async def settle(
        self, database: Database, settlements: Sequence[Settlement[Payment]]
    ) -> tuple[set[str], list[OutboxRow]]:
        """Write outcomes."""
        return await settle_payments(database, settlements)


class RefundWork:
    """Money from the merchant back to the customer."""

    table: Table = "refunds"
    kind = REFUNDS
    queue = PROCESSOR_REFUNDS
    question = "refund"

    async def load(self, database: Database, items: Sequence[Item]) -> dict[str, Refund]:
        """The refunds."""
        return await load_refunds(database, items)

    def begun(self, subject: Refund, now: datetime) -> Refund:
        """It, in processing since `now`."""
        return replace(subject, status=RefundStatus.PROCESSING, updated_at=now)

    async def begin(
        self, database: Database, begun: Sequence[Refund], now: datetime
    ) -> list[OutboxRow]:
        """Nobody is told: a merchant who asked for a refund knows."""
        await begin_refunds(database, begun, now)
        return []

    async def ask(self, gateway: Gateway, subject: Refund) -> Outcome:
        """Give the money back."""
        return await gateway.refund(refund_for(subject))

    def decide(
        self, subject: Refund, answer: Answer, gateway: str, now: datetime
    ) -> Settlement[Refund] | StillUnknown[Refund]:
        """What the answer means."""
        return decide_refund(subject, answer, gateway, now)

    async def settle(
        self, database: Database, settlements: Sequence[Settlement[Refund]]
    ) -> tuple[set[str], list[OutboxRow]]:
        """Write outcomes."""
        return await settle_refunds(database, settlements)


PAYMENT_WORK: Final = PaymentWork()
REFUND_WORK: Final = RefundWork()
