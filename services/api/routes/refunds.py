"""/refunds: all or part of a completed payment, given back."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from services.api.accept import IdempotencyMismatch
from services.api.codes import Code
from services.api.context import (
    CONTEXT,
    answer,
    idempotency_key,
    page,
    path_id,
    read_body,
    read_query,
    span_of,
)
from services.api.errors import invalid, key_reused, not_found
from services.api.gate import CALLER, REQUEST_ID
from services.api.models import CreateRefund, ListRefunds, RetrieveRefund, metadata_text
from services.api.objects import ChargeObject, Listing, RefundAnswer
from services.api.once import REPLAYED
from services.api.operation import Operation
from services.api.reserve import RefundRefused
from services.api.routes.balance import balance_transaction_object
from services.api.routes.charges import charges_by_id
from services.api.store.ledger import Transfer, find_transfers_of
from services.api.store.refunds import NewRefund, find_refund, list_refunds
from shared.ids import new_id
from shared.refund import SEEN_AS, Refund, refund_object


async def create(request: web.Request) -> web.Response:
    """Refund a completed payment, in full or in part.

    The amount is reserved at once, so that no more than was paid can ever be given back; the refund
    ends succeeded or failed, and a failed one gives its reservation back.
    """
    body = await read_body(request, CreateRefund)
    named = body.payments
    if len(named) != 1:
        raise invalid(
            Code.PARAMETER_MISSING if not named else Code.PARAMETER_INVALID,
            "Say which payment to refund by exactly one of charge, payment_id and transaction_id.",
            "charge",
        )
    [(param, payment_id)] = named.items()
    metadata = metadata_text(body.metadata)
    key = idempotency_key(request)
    new = NewRefund(
        account_id=request[CALLER].account_id,
        id=new_id("re"),
        payment_id=payment_id,
        amount=body.amount,
        reason=body.reason,
        metadata=metadata,
        idempotency_key=key,
        request_fingerprint=fingerprint(payment_id, body.amount, body.reason, metadata)
        if key
        else None,
        request_id=request[REQUEST_ID],
    )
    try:
        reserved = await request.app[CONTEXT].reserver.reserve(new)
    except IdempotencyMismatch:
        raise key_reused() from None
    except RefundRefused as error:
        refused = error.refused
        about = param if refused.missing or refused.code != Code.AMOUNT_TOO_LARGE else "amount"
        raise invalid(
            refused.code, refused.message, about, 404 if refused.missing else 400
        ) from None
    return answer(
        refund_answer(reserved.refund, None), headers=REPLAYED if reserved.replayed else None
    )


async def retrieve(request: web.Request) -> web.Response:
    """One refund."""
    query = read_query(request, RetrieveRefund)
    id_ = path_id(request)
    refund = await find_refund(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if refund is None:
        raise not_found("refund", id_)
    [shown] = await _shown(request, [refund], query.expand)
    return answer(shown)


async def list_(request: web.Request) -> web.Response:
    """Refunds, newest first."""
    query = read_query(request, ListRefunds)
    if query.charge is not None and query.payment_id is not None:
        raise invalid(Code.PARAMETER_INVALID, "Give charge or payment_id, not both.", "payment_id")
    found = await list_refunds(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        payment_id=query.charge or query.payment_id,
        statuses=[s for s, seen in SEEN_AS.items() if seen == query.status] or None,
    )
    expand = [name.removeprefix("data.") for name in query.expand]
    shown = {refund["id"]: refund for refund in await _shown(request, found, expand)}
    return page("/v1/refunds", query, found, lambda refund: shown[refund.id])


async def _shown(
    request: web.Request, refunds: Sequence[Refund], expand: Sequence[str]
) -> list[RefundAnswer]:
    """Refunds as clients see them, with what is to be expanded in full."""
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    transfers = await find_transfers_of(database, account_id, "refund", [r.id for r in refunds])
    charges = (
        await charges_by_id(database, account_id, [refund.payment_id for refund in refunds])
        if "charge" in expand
        else {}
    )
    return [
        refund_answer(
            refund,
            transfers.get(refund.id),
            charges.get(refund.payment_id),
            in_full="balance_transaction" in expand,
        )
        for refund in refunds
    ]


def refund_answer(
    refund: Refund,
    transfer: Transfer | None,
    charge: ChargeObject | None = None,
    *,
    in_full: bool = False,
) -> RefundAnswer:
    """A refund; its charge as an object when there is one, and its transfer `in_full` or by id."""
    shown = refund_object(refund, transfer.id if transfer else None)
    return {
        **shown,
        "charge": charge or shown["charge"],
        "balance_transaction": balance_transaction_object(transfer)
        if transfer is not None and in_full
        else shown["balance_transaction"],
    }


def fingerprint(payment_id: str, amount: int | None, reason: str | None, metadata: str) -> bytes:
    """What makes two requests the same: the meaning of their parameters, not their spelling."""
    return hashlib.sha256(json.dumps([payment_id, amount, reason, metadata]).encode()).digest()


OPERATIONS: Final = (
    Operation("POST", "/refunds", create, RefundAnswer, body=CreateRefund, plain=True),
    Operation("GET", "/refunds", list_, Listing[RefundAnswer], query=ListRefunds),
    Operation("GET", "/refunds/{id}", retrieve, RefundAnswer, query=RetrieveRefund),
)
