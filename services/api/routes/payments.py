"""/payments: money in major units, for apps that think in users."""

from typing import Final

from aiohttp import web

from services.api.codes import Code
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
from services.api.models import CreatePayment, ListPayments, Retrieve
from services.api.objects import (
    AcceptedPayment,
    Listing,
    OnePayment,
    Stats,
    StatsAnswer,
    Timeline,
)
from services.api.operation import Operation
from services.api.store.counts import find_counts
from services.api.store.payments import find_payment, list_payments
from services.api.store.timeline import find_steps
from services.api.timeline import in_order
from shared.money import InvalidMoney, to_major, to_minor
from shared.payment import PaymentObject, payment_object
from shared.states import PaymentStatus

SCOPE: Final = "payments"


async def create(request: web.Request) -> web.Response:
    """Take a payment.

    The answer is the payment, pending: it is committed and will be settled.
    """
    body = await read_body(request, CreatePayment)
    try:
        amount = to_minor(body.amount, body.currency)
    except InvalidMoney as error:
        raise invalid(Code.PARAMETER_INVALID, f"Invalid amount: {error}.", "amount") from None
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
    read_query(request, Retrieve)
    id_ = path_id(request)
    payment = await find_payment(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if payment is None:
        raise not_found("payment", id_)
    return answer({"payment": payment_object(payment)})


async def list_(request: web.Request) -> web.Response:
    """Payments, newest first."""
    query = read_query(request, ListPayments)
    found = await list_payments(
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
    read_query(request, Retrieve)
    counts = await find_counts(request.app[CONTEXT].database, request[CALLER].account_id)
    by_status = dict.fromkeys(PaymentStatus, 0)
    by_currency: dict[str, int] = {}
    for count in counts:
        if count.object == "payment":
            by_status[PaymentStatus(count.status)] += count.number
            by_currency[count.currency] = by_currency.get(count.currency, 0) + count.amount
    shown: Stats = {
        "total_payments": sum(by_status.values()),
        "pending_payments": by_status[PaymentStatus.PENDING],
        "processing_payments": by_status[PaymentStatus.PROCESSING],
        "completed_payments": by_status[PaymentStatus.COMPLETED],
        "failed_payments": by_status[PaymentStatus.FAILED],
        "total_amount": {
            currency: to_major(amount, currency) for currency, amount in sorted(by_currency.items())
        },
    }
    return answer({"stats": shown})


async def timeline(request: web.Request) -> web.Response:
    """Every step of one payment, with times.

    The request, the wait in the queue, every question to the gateway, transfers, events, attempts
    at webhooks, and its refunds with theirs.
    """
    read_query(request, Retrieve)
    id_ = path_id(request)
    steps = await find_steps(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if steps is None:
        raise not_found("payment", id_)
    return answer({"payment_id": id_, "timeline": in_order(steps)})


OPERATIONS: Final = (
    Operation(
        "POST", "/payments", create, AcceptedPayment, status=202, body=CreatePayment, plain=True
    ),
    Operation("GET", "/payments", list_, Listing[PaymentObject], query=ListPayments),
    Operation("GET", "/payments/metrics/stats", stats, StatsAnswer, query=Retrieve),
    Operation("GET", "/payments/{id}", retrieve, OnePayment, query=Retrieve),
    Operation("GET", "/payments/{id}/timeline", timeline, Timeline, query=Retrieve),
)
