"""/payments: money in major units, for apps that think in users."""

from typing import Any

from aiohttp import web

from services.api import store
from services.api.context import (
    CONTEXT,
    answer,
    page,
    path_id,
    read_body,
    read_query,
    span_of,
)
from services.api.errors import invalid, not_found
from services.api.gate import CALLER
from services.api.intake import accept_payment, replayed_header
from services.api.models import CreatePayment, ListPayments
from shared.money import InvalidMoney, to_major, to_minor
from shared.payment import payment_object
from shared.states import PaymentStatus

SCOPE = "payments"


async def create(request: web.Request) -> web.Response:
    """202 with the payment, pending: it is committed and will be settled."""
    body = await read_body(request, CreatePayment)
    try:
        amount = to_minor(body.amount, body.currency)
    except InvalidMoney as error:
        raise invalid("parameter_invalid", f"Invalid amount: {error}.", "amount") from None
    accepted = await accept_payment(
        request,
        scope=SCOPE,
        amount=amount,
        currency=body.currency,
        customer=body.user_id,
        description=body.description,
        metadata=body.metadata,
    )
    payment = accepted.payment
    return answer(
        {"payment_id": payment.id, "status": payment.status, "payment": payment_object(payment)},
        status=202,
        headers={"Location": f"/api/v1/payments/{payment.id}"} | replayed_header(accepted),
    )


async def retrieve(request: web.Request) -> web.Response:
    """One payment."""
    id_ = path_id(request)
    payment = await store.find_payment(
        request.app[CONTEXT].database, request[CALLER].account_id, id_
    )
    if payment is None:
        raise not_found("payment", id_)
    return answer({"payment": payment_object(payment)})


async def list_(request: web.Request) -> web.Response:
    """Payments, newest first."""
    query = read_query(request, ListPayments)
    found = await store.list_payments(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        statuses=[query.status] if query.status else None,
        customer=query.user_id,
        currency=query.currency,
    )
    return page("/v1/payments", query, found, payment_object)


async def stats(request: web.Request) -> web.Response:
    """How many payments stand where, and their amounts by currency in major units."""
    counts = await store.count_payments(request.app[CONTEXT].database, request[CALLER].account_id)
    by_status = dict.fromkeys(PaymentStatus, 0)
    by_currency: dict[str, int] = {}
    for currency, status, payments, amount in counts:
        by_status[PaymentStatus(status)] += payments
        by_currency[currency] = by_currency.get(currency, 0) + amount
    result: dict[str, Any] = {"total_payments": sum(by_status.values())}
    result |= {f"{status}_payments": count for status, count in by_status.items()}
    result["total_amount"] = {
        currency: to_major(amount, currency) for currency, amount in sorted(by_currency.items())
    }
    return answer({"stats": result})


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes under `prefix`."""
    return [
        web.post(f"{prefix}/payments", create),
        web.get(f"{prefix}/payments", list_),
        web.get(f"{prefix}/payments/metrics/stats", stats),
        web.get(f"{prefix}/payments/{{id}}", retrieve),
    ]
