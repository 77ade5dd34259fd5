"""Accepting a payment: commit it together with the message that tells of it, then answer.

Requests that arrive together share a statement and a commit. Nothing here needs RabbitMQ.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from msgspec import Struct

from services.api.recent import Recent
from services.api.store.payments import NewPayment, find_accepted, insert_payments
from shared import metrics
from shared.batcher import Batcher
from shared.db import Database
from shared.errors import Transient
from shared.outbox import OutboxRelay
from shared.patience import try_for
from shared.payment import Payment
from shared.states import PaymentStatus

log = structlog.get_logger()

LOST_ANSWER_RETRY: Final = 2.0
"""Seconds in which a commit whose answer was lost is asked for again before the client is."""
ACCEPT_REST: Final = 0.5
"""How long accepting rests, by how long a write took: a client waits."""
REMEMBERED: Final = 10_000
"""Keys whose payments are kept in memory."""
REMEMBERED_METADATA: Final = 1024
"""Characters; a payment with more is asked for again."""


_ACCEPTED: Final = {
    replayed: metrics.PAYMENTS_ACCEPTED.labels(str(replayed).lower()) for replayed in (False, True)
}


class IdempotencyMismatch(Exception):  # noqa: N818 - an answer
    """The key was used before, with other parameters."""


class Accepted(Struct, frozen=True):
    """A committed payment as it was when accepted; `replayed` if an earlier request made it."""

    payment: Payment
    replayed: bool


@dataclass(slots=True)
class Acceptor:
    """Commits payments in groups and hands each commit's message to the relay."""

    database: Database
    relay: OutboxRelay
    max_batch: int
    max_waiting: int
    _batcher: Batcher[NewPayment, Payment | Transient] = field(init=False)
    _recent: Recent[tuple[str, str | None, str], Payment] = field(
        init=False, default_factory=lambda: Recent(REMEMBERED)
    )

    def __post_init__(self) -> None:
        self._batcher = Batcher(
            self._commit, max_size=self.max_batch, max_waiting=self.max_waiting, rest=ACCEPT_REST
        )

    async def accept(self, new: NewPayment) -> Accepted:
        """Commit `new`, or find what its idempotency key made before.

        Raises IdempotencyMismatch; Saturated when too many wait; Transient when Postgres is away,
        in which case the payment may or may not exist and only its key can tell.
        """
        key = new.idempotency_key
        place = (new.account_id, new.idempotency_scope, key) if key is not None else None
        payment = self._recent.get(place) if place is not None else None
        if payment is None:
            written = await self._batcher.submit(new)
            if isinstance(written, Transient):
                raise written
            payment = written
            if place is not None and len(payment.metadata) <= REMEMBERED_METADATA:
                self._recent.put(place, payment)
        replayed = payment.id != new.id
        if replayed and payment.request_fingerprint != new.request_fingerprint:
            raise IdempotencyMismatch
        _ACCEPTED[replayed].inc()
        return Accepted(payment, replayed)

    async def drain(self) -> None:
        """Return when every commit under way is done."""
        await self._batcher.drain()

    async def _commit(self, batch: list[NewPayment]) -> Sequence[Payment | Transient]:
        # Two processes that commit the same keys at once must lock them in the same order.
        ordered = sorted(batch, key=lambda p: (p.account_id, p.idempotency_key or "", p.id))
        created, outbox = await try_for(LOST_ANSWER_RETRY, insert_payments, self.database, ordered)
        metrics.BATCH_SIZE.labels("accept").observe(len(batch))
        if outbox is not None:
            self.relay.offer([outbox])
        repeated = [new for new in batch if new.id not in created]
        if not repeated:
            return [_as_payment(new, created[new.id]) for new in batch]
        try:
            by_id, by_key = await try_for(LOST_ANSWER_RETRY, find_accepted, self.database, repeated)
        except Transient as away:  # theirs alone: what was created is committed, and answered so
            return [
                _as_payment(new, created[new.id]) if new.id in created else away for new in batch
            ]
        return [
            _as_payment(new, created[new.id])
            if new.id in created
            else _repeated(new, by_id, by_key).as_created()
            for new in batch
        ]


def _repeated(
    new: NewPayment,
    by_id: dict[str, Payment],
    by_key: dict[tuple[str, str | None, str | None], Payment],
) -> Payment:
    return by_id.get(new.id) or by_key[new.account_id, new.idempotency_scope, new.idempotency_key]


def _as_payment(new: NewPayment, created_at: datetime) -> Payment:
    return Payment(
        account_id=new.account_id,
        id=new.id,
        amount=new.amount,
        currency=new.currency,
        customer=new.customer,
        description=new.description,
        metadata=new.metadata,
        status=PaymentStatus.PENDING,
        created_at=created_at,
        updated_at=created_at,
        request_fingerprint=new.request_fingerprint,
        request_id=new.request_id,
    )


def fingerprint(
    *, amount: int, currency: str, customer: str | None, description: str | None, metadata: str
) -> bytes:
    """What makes two requests the same: the meaning of their parameters, not their spelling."""
    meaning = json.dumps([amount, currency, customer, description, metadata])
    return hashlib.sha256(meaning.encode()).digest()
