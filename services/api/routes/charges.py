"""/charges: the same payments in minor units, as Stripe's SDKs know them."""

import json
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from aiohttp import web

from services.api.context import CONTEXT, answer, page, path_id, read_body, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.intake import accept_payment, replayed_header
from services.api.models import CreateCharge, ListCharges, RetrieveCharge
from services.api.objects import ChargeObject, Listing
from services.api.operation import Operation
from services.api.routes.balance import balance_transaction_object
from services.api.store.ledger import Transfer, find_transfers_of
from services.api.store.payments import find_payment, find_payments, list_payments
from shared.db import Database
from shared.payment import Payment
from shared.states import PaymentStatus

SCOPE: Final = "charges"
_SEEN_AS: Final[Mapping[PaymentStatus, Literal["pending", "succeeded", "failed"]]] = {
    PaymentStatus.PENDING: "pending",
    PaymentStatus.PROCESSING: "pending",
    PaymentStatus.COMPLETED: "succeeded",
    PaymentStatus.FAILED: "failed",
}


def charge_object(
    payment: Payment, transfer: Transfer | None, expand: Sequence[str] = ()
) -> ChargeObject:
    """A payment as a Charge; `transfer` is what moved its money, when it has been moved."""
    succeeded = payment.status is PaymentStatus.COMPLETED
    return {
        "id": payment.id,
        "object": "charge",
        "amount": payment.amount,
        "amount_captured": payment.amount if succeeded else 0,
        "amount_refunded": payment.amount_refunded,
        "balance_transaction": None
        if transfer is None
        else balance_transaction_object(transfer)
        if "balance_transaction" in expand
        else transfer.id,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None},
        "captured": succeeded,
        "created": int(payment.created_at.timestamp()),
        "currency": payment.currency.lower(),
        "customer": payment.customer,
        "description": payment.description,
        "disputed": False,
        "failure_code": payment.failure_code,
        "failure_message": payment.failure_message,
        "livemode": False,
        "metadata": json.loads(payment.metadata),
        "paid": succeeded,
        "refunded": payment.amount_refunded == payment.amount,
        "status": _SEEN_AS[payment.status],
    }


async def charges_by_id(
    database: Database, account_id: str, ids: Sequence[str]
) -> dict[str, ChargeObject]:
    """Charges, each as clients see it."""
    found = await find_payments(database, account_id, ids)
    transfers = await find_transfers_of(database, account_id, "payment", ids)
    return {p.id: charge_object(p, transfers.get(p.id)) for p in found}


async def create(request: web.Request) -> web.Response:
    """Charge a customer.

    The answer is the charge, pending: it is committed, and ends succeeded or failed.
    """
    body = await read_body(request, CreateCharge)
    accepted = await accept_payment(
        request,
        scope=SCOPE,
        amount=body.amount,
        currency=body.currency,
        customer=body.customer,
        description=body.description,
        metadata=body.metadata,
    )
    return answer(charge_object(accepted.payment, None), headers=replayed_header(accepted))


async def retrieve(request: web.Request) -> web.Response:
    """One charge."""
    query = read_query(request, RetrieveCharge)
    id_ = path_id(request)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    payment = await find_payment(database, account_id, id_)
    if payment is None:
        raise not_found("charge", id_)
    transfers = await find_transfers_of(database, account_id, "payment", [id_])
    return answer(charge_object(payment, transfers.get(id_), query.expand))


async def list_(request: web.Request) -> web.Response:
    """Charges, newest first."""
    query = read_query(request, ListCharges)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    found = await list_payments(
        database,
        account_id,
        span_of(query),
        statuses=[s for s, seen in _SEEN_AS.items() if seen == query.status] or None,
        customer=query.customer,
        currency=query.currency,
    )
    transfers = await find_transfers_of(database, account_id, "payment", [p.id for p in found])
    expand = [name.removeprefix("data.") for name in query.expand]
    return page(
        "/v1/charges", query, found, lambda p: charge_object(p, transfers.get(p.id), expand)
    )


OPERATIONS: Final = (
    Operation("POST", "/charges", create, ChargeObject, body=CreateCharge, plain=True),
    Operation("GET", "/charges", list_, Listing[ChargeObject], query=ListCharges),
    Operation("GET", "/charges/{id}", retrieve, ChargeObject, query=RetrieveCharge),
)
