"""Accepting a refund: reserve its amount on the payment, and commit it with its message.

Requests that arrive together share a statement, except those of one payment, which take turns: the
conditional UPDATE that reserves is the gate, and it changes a row once. Whoever has had a turn is
answered; the others come with the next batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from msgspec import Struct

from services.api.accept import (
    ACCEPT_REST,
    LOST_ANSWER_RETRY,
    REMEMBERED,
    REMEMBERED_METADATA,
    IdempotencyMismatch,
)
from services.api.codes import Code
from services.api.recent import Recent
from services.api.store.refunds import NewRefund, Standing, find_standings, reserve_refunds
from shared import metrics
from shared.batcher import Batcher
from shared.db import Database, RowRefused
from shared.errors import Transient
from shared.money import to_major
from shared.outbox import OutboxRelay
from shared.patience import try_for
from shared.refund import Refund
from shared.states import PaymentStatus

UNIQUE_KEYS: Final = ("refunds_pkey", "refunds_account_id_idempotency_key_key")


class Reserved(Struct, frozen=True):
    """A committed refund as it was when accepted; `replayed` if an earlier request made it."""

    refund: Refund
    replayed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a refund cannot be: a stable code, what a person should know, and whether that is because
    there is no such payment."""

    code: Code
    message: str
    missing: bool = False


class RefundRefused(Exception):  # noqa: N818 - an answer
    """The payment does not allow this refund."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


@dataclass(slots=True)
class Reserver:
    """Commits refunds in groups and hands each commit's message to the relay."""

    database: Database
    relay: OutboxRelay
    max_batch: int
    max_waiting: int
    _batcher: Batcher[NewRefund, Refund | Refused | Transient | None] = field(init=False)
    _recent: Recent[tuple[str, str], Refund] = field(
        init=False, default_factory=lambda: Recent(REMEMBERED)
    )

    def __post_init__(self) -> None:
        self._batcher = Batcher(
            self._commit, max_size=self.max_batch, max_waiting=self.max_waiting, rest=ACCEPT_REST
        )

    async def reserve(self, new: NewRefund) -> Reserved:
        """Commit `new`, or find what its idempotency key made before.

        Raises RefundRefused, IdempotencyMismatch; Saturated when too many wait; Transient when
        Postgres is away, in which case only the key can tell whether the refund exists.
        """
        key = new.idempotency_key
        place = (new.account_id, key) if key is not None else None
        refund = self._recent.get(place) if place is not None else None
        if refund is None:
            refund = (await self._write(new)).as_created()
            if place is not None and len(refund.metadata) <= REMEMBERED_METADATA:
                self._recent.put(place, refund)
        replayed = refund.id != new.id
        if replayed and refund.request_fingerprint != new.request_fingerprint:
            raise IdempotencyMismatch
        metrics.REFUNDS_ACCEPTED.labels(str(replayed).lower()).inc()
        return Reserved(refund, replayed)

    async def _write(self, new: NewRefund) -> Refund:
        while True:  # until it has had its turn
            match await self._batcher.submit(new):
                case Refused() as refused:
                    raise RefundRefused(refused)
                case Transient() as away:
                    raise away
                case Refund() as refund:
                    return refund
                case None:
                    continue
                case never:
                    assert_never(never)

    async def drain(self) -> None:
        """Return when every commit under way is done."""
        await self._batcher.drain()

    async def _commit(
        self, batch: list[NewRefund]
    ) -> Sequence[Refund | Refused | Transient | None]:
        # Every refund has its id already, so that one which was committed and whose answer was
        # lost, or which a bisected batch repeats, finds itself made and is not made twice.
        turn = _first_of_each_payment(batch)
        try:
            made, outbox = await try_for(LOST_ANSWER_RETRY, reserve_refunds, self.database, turn)
        except RowRefused as error:
            if len(batch) > 1 or error.constraint not in UNIQUE_KEYS:
                raise  # the batcher bisects
            made, outbox = {}, None  # another process was first: it is found below
        if outbox is not None:
            self.relay.offer([outbox])
        answers: dict[str, Refund | Refused | Transient | None] = {**made}
        if unmade := _to_look_at(batch, turn, made):
            try:
                standings = await try_for(LOST_ANSWER_RETRY, find_standings, self.database, unmade)
            except Transient as away:  # theirs alone: what was made is committed, and answered so
                answers |= {new.id: away for new in unmade}
            else:
                answers |= {new.id: judge(new, standings[new.id]) for new in unmade}
        metrics.BATCH_SIZE.labels("reserve").observe(len(batch))
        return [answers.get(new.id) for new in batch]


def judge(new: NewRefund, standing: Standing) -> Refund | Refused | None:
    """What became of a refund that the gate did not let through; None when it would now."""
    if standing.earlier is not None:
        return standing.earlier
    if standing.status is None or standing.currency is None:
        return Refused(Code.RESOURCE_MISSING, f"No such payment: {new.payment_id[:80]!r}.", True)
    if standing.status is not PaymentStatus.COMPLETED:
        return Refused(
            Code.CHARGE_NOT_REFUNDABLE,
            f"Payment {new.payment_id} is {standing.status}: only a completed payment can be"
            " refunded.",
        )
    if standing.left == 0:
        return Refused(
            Code.CHARGE_ALREADY_REFUNDED, f"Payment {new.payment_id} is refunded in full already."
        )
    if new.amount is not None and new.amount > standing.left:
        left = to_major(standing.left, standing.currency)
        return Refused(
            Code.AMOUNT_TOO_LARGE,
            f"{to_major(new.amount, standing.currency)} {standing.currency} is more than the"
            f" {left} {standing.currency} that are left to refund of payment {new.payment_id}:"
            f" the amount may be at most {standing.left}.",
        )
    return None


def _first_of_each_payment(waiting: list[NewRefund]) -> list[NewRefund]:
    """Refunds that one statement may reserve: no two of one payment or key, in locking order."""
    turn: list[NewRefund] = []
    taken: set[tuple[str, str, str]] = set()
    for new in waiting:
        claims = {(new.account_id, "payment", new.payment_id)}
        if new.idempotency_key is not None:
            claims.add((new.account_id, "key", new.idempotency_key))
        if taken.isdisjoint(claims):
            turn.append(new)
        taken |= claims
    return sorted(turn, key=lambda new: (new.account_id, new.payment_id))


def _to_look_at(
    batch: list[NewRefund], turn: list[NewRefund], made: Mapping[str, Refund]
) -> list[NewRefund]:
    """Those of `batch` about which something is known now: who had a turn in vain, who asks for
    more of the same payment, and who repeats a key that had a turn."""
    in_vain = {(new.account_id, new.payment_id) for new in turn if new.id not in made}
    keys = {(new.account_id, new.idempotency_key) for new in turn if new.idempotency_key}
    return [
        new
        for new in batch
        if new.id not in made
        and (
            (new.account_id, new.payment_id) in in_vain
            or (new.account_id, new.idempotency_key) in keys
        )
    ]
