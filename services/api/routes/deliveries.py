"""/deliveries: what became of telling an endpoint, attempt by attempt."""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from services.api.codes import Code
from services.api.context import CONTEXT, answer, page, path_id, read_body, read_query, span_of
from services.api.errors import invalid, not_found
from services.api.gate import CALLER
from services.api.models import Retrieve
from services.api.objects import AttemptObject, DeliveryObject, DeliveryWithAttempts, Listing
from services.api.once import once
from services.api.operation import Operation
from services.api.store.deliveries import (
    Attempt,
    Delivery,
    find_delivery,
    list_attempts,
    list_deliveries,
    queue_redelivery,
)
from services.api.store.endpoints import find_webhook_endpoint
from services.api.webhook_models import ListDeliveries, ListDeliveriesOfEndpoint, Redeliver
from shared.db import Connection
from shared.payment import iso
from shared.states import DeliveryStatus


def delivery_object(delivery: Delivery) -> DeliveryObject:
    """The public form of a delivery.

    What was never attempted is pending, also where it waits for its endpoint to have room; and what
    is due has no time: it is attempted as soon as the endpoint takes it.
    """
    due, status = delivery.next_attempt_at, DeliveryStatus(delivery.status)
    if status is DeliveryStatus.RETRYING and not delivery.attempts:
        status = DeliveryStatus.PENDING
    return {
        "id": delivery.id,
        "object": "delivery",
        "event": delivery.event_id,
        "event_type": delivery.event_type,
        "webhook_endpoint": delivery.endpoint_id,
        "status": status,
        "attempts_made": delivery.attempts,
        "next_attempt_at": iso(due) if due and due > datetime.now(UTC) else None,
        "created": int(delivery.created_at.timestamp()),
        "updated_at": iso(delivery.updated_at),
    }


def attempt_object(attempt: Attempt) -> AttemptObject:
    """The public form of an attempt."""
    return {
        "number": attempt.number,
        "started_at": iso(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "status_code": attempt.status_code,
        "response_start": attempt.response_start,
        "error": attempt.error,
    }


async def list_of_endpoint(request: web.Request) -> web.Response:
    """Deliveries to one endpoint, newest first."""
    query = read_query(request, ListDeliveriesOfEndpoint)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    endpoint_id = path_id(request)
    if await find_webhook_endpoint(database, account_id, endpoint_id) is None:
        raise not_found("webhook endpoint", endpoint_id)
    found = await list_deliveries(
        database,
        account_id,
        span_of(query),
        endpoint_id=endpoint_id,
        status=query.status,
    )
    return page(f"/v1/webhook_endpoints/{endpoint_id}/deliveries", query, found, delivery_object)


async def list_(request: web.Request) -> web.Response:
    """Deliveries to all endpoints, newest first; with `status=dead`, those that a person must look
    at."""
    query = read_query(request, ListDeliveries)
    found = await list_deliveries(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        endpoint_id=None,
        status=query.status,
    )
    return page("/v1/deliveries", query, found, delivery_object)


async def retrieve(request: web.Request) -> web.Response:
    """One delivery, with its attempts."""
    read_query(request, Retrieve)
    database, account_id, id_ = (
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        path_id(request),
    )
    delivery = await find_delivery(database, account_id, id_)
    if delivery is None:
        raise not_found("delivery", id_)
    attempts = await list_attempts(database, account_id, id_)
    shown: DeliveryWithAttempts = {
        **delivery_object(delivery),
        "attempts": [attempt_object(attempt) for attempt in attempts],
    }
    return answer(shown)


async def redeliver(request: web.Request) -> web.Response:
    """Attempt a delivery once more, now, whatever became of it.

    The answer shows it due. It is refused while an attempt is under way, and for an endpoint that
    is disabled or was deleted.
    """
    body = await read_body(request, Redeliver)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    id_ = path_id(request)
    delivery = await find_delivery(database, account_id, id_)
    if delivery is None:
        raise not_found("delivery", id_)

    async def queue(transaction: Connection) -> DeliveryObject:
        endpoint_id = delivery.endpoint_id
        endpoint = await find_webhook_endpoint(transaction, account_id, endpoint_id)
        if endpoint is None:
            raise invalid(
                Code.DELIVERY_NOT_REPEATABLE, f"Its endpoint {endpoint_id} was deleted.", "id"
            )
        if endpoint.disabled_at is not None:
            raise invalid(
                Code.DELIVERY_NOT_REPEATABLE,
                f"Its endpoint {endpoint_id} is disabled: enable it with `disabled=false`.",
                "id",
            )
        if not await queue_redelivery(transaction, account_id, id_):
            raise invalid(
                Code.DELIVERY_NOT_REPEATABLE,
                "An attempt at it is under way, or is about to be: wait for its outcome.",
                "id",
            )
        queued = await find_delivery(transaction, account_id, id_)
        assert queued is not None  # noqa: S101 - its row is locked by this transaction
        return delivery_object(queued)

    return await once(request, f"deliveries/{id_}/redeliver", body, queue)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/webhook_endpoints/{id}/deliveries",
        list_of_endpoint,
        Listing[DeliveryObject],
        query=ListDeliveriesOfEndpoint,
    ),
    Operation("GET", "/deliveries", list_, Listing[DeliveryObject], query=ListDeliveries),
    Operation("GET", "/deliveries/{id}", retrieve, DeliveryWithAttempts, query=Retrieve),
    Operation("POST", "/deliveries/{id}/redeliver", redeliver, DeliveryObject, body=Redeliver),
)
