"""/charges: the same payments in minor units, as Stripe's SDKs know them."""

import json
from typing import Any

from aiohttp import web

from services.api import store
from services.api.context import CONTEXT, answer, page, path_id, read_body, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.intake import accept_payment, replayed_header
from services.api.models import ChargeStatus, CreateCharge, ListCharges
from shared.payment import Payment
from shared.states import PaymentStatus

SCOPE = "charges"
_SEEN_AS = {
    PaymentStatus.PENDING: ChargeStatus.PENDING,
    PaymentStatus.PROCESSING: ChargeStatus.PENDING,
    PaymentStatus.COMPLETED: ChargeStatus.SUCCEEDED,
    PaymentStatus.FAILED: ChargeStatus.FAILED,
}


def charge_object(payment: Payment, balance_transaction: str | None) -> dict[str, Any]:
    """A payment as a Charge; `balance_transaction` is the id of its transfer, when it has one."""
    succeeded = payment.status is PaymentStatus.COMPLETED
    return {
        "id": payment.id,
        "object": "charge",
        "amount": payment.amount,
        "amount_captured": payment.amount if succeeded else 0,
        "amount_refunded": payment.amount_refunded,
        "balance_transaction": balance_transaction,
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


async def create(request: web.Request) -> web.Response:
    """200 with the charge, pending: it is committed, and ends succeeded or failed."""
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
    id_ = path_id(request)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    payment = await store.find_payment(database, account_id, id_)
    if payment is None:
        raise not_found("charge", id_)
    transfers = await store.find_transfers_of(database, account_id, [id_])
    return answer(charge_object(payment, transfers.get(id_)))


async def list_(request: web.Request) -> web.Response:
    """Charges, newest first."""
    query = read_query(request, ListCharges)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    found = await store.list_payments(
        database,
        account_id,
        span_of(query),
        statuses=[s for s, seen in _SEEN_AS.items() if seen is query.status] or None,
        customer=query.customer,
        currency=query.currency,
    )
    transfers = await store.find_transfers_of(database, account_id, [p.id for p in found])
    return page("/v1/charges", query, found, lambda p: charge_object(p, transfers.get(p.id)))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes under `prefix`."""
    return [
        web.post(f"{prefix}/charges", create),
        web.get(f"{prefix}/charges", list_),
        web.get(f"{prefix}/charges/{{id}}", retrieve),
    ]
