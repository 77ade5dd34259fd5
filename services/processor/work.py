"""The two kinds of work: payments and refunds, as the settler and the janitor see them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Generic, Protocol

from services.processor.gateways.base import Gateway, Outcome
from services.processor.settlement import (
    Answer,
    Move,
    S,
    StillUnknown,
    begin_payment,
    begin_refund,
    charge_for,
    decide_payment,
    decide_refund,
    refund_for,
)
from services.processor.store.payments import load_payments, move_payments
from services.processor.store.refunds import load_refunds, move_refunds
from services.processor.store.unsettled import Table
from shared.db import Database
from shared.messages import PAYMENTS, REFUNDS, Item
from shared.payment import Payment
from shared.refund import Refund
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

    def begin(self, subject: S, now: datetime) -> Move[S]:
        """From pending to processing."""
        ...

    async def ask(self, gateway: Gateway, subject: S) -> Outcome:
        """The one question about it."""
        ...

    def decide(
        self, subject: S, answer: Answer, gateway: str, now: datetime
    ) -> Move[S] | StillUnknown[S]:
        """What the answer means."""
        ...

    async def move(
        self, database: Database, moves: Sequence[Move[S]]
    ) -> tuple[set[str], list[OutboxRow]]:
        """Write next states; returns the ids of those that moved, and the messages."""
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

    def begin(self, subject: Payment, now: datetime) -> Move[Payment]:
        """From pending to processing."""
        return begin_payment(subject, now)

    async def ask(self, gateway: Gateway, subject: Payment) -> Outcome:
        """Take the money."""
        return await gateway.charge(charge_for(subject))

    def decide(
        self, subject: Payment, answer: Answer, gateway: str, now: datetime
    ) -> Move[Payment] | StillUnknown[Payment]:
        """What the answer means."""
        return decide_payment(subject, answer, gateway, now)

    async def move(
        self, database: Database, moves: Sequence[Move[Payment]]
    ) -> tuple[set[str], list[OutboxRow]]:
        """Write next states."""
        return await move_payments(database, moves)


class RefundWork:
    """Money from the merchant back to the customer."""

    table: Table = "refunds"
    kind = REFUNDS
    queue = PROCESSOR_REFUNDS
    question = "refund"

    async def load(self, database: Database, items: Sequence[Item]) -> dict[str, Refund]:
        """The refunds."""
        return await load_refunds(database, items)

    def begin(self, subject: Refund, now: datetime) -> Move[Refund]:
        """From pending to processing."""
        return begin_refund(subject, now)

    async def ask(self, gateway: Gateway, subject: Refund) -> Outcome:
        """Give the money back."""
        return await gateway.refund(refund_for(subject))

    def decide(
        self, subject: Refund, answer: Answer, gateway: str, now: datetime
    ) -> Move[Refund] | StillUnknown[Refund]:
        """What the answer means."""
        return decide_refund(subject, answer, gateway, now)

    async def move(
        self, database: Database, moves: Sequence[Move[Refund]]
    ) -> tuple[set[str], list[OutboxRow]]:
        """Write next states."""
        return await move_refunds(database, moves)


PAYMENT_WORK: Final = PaymentWork()
REFUND_WORK: Final = RefundWork()
