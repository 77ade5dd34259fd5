"""/webhook_endpoints: where events are sent."""

import json
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from services.api.codes import Code
from services.api.context import CONTEXT, answer, page, path_id, read_body, read_query, span_of
from services.api.errors import invalid, not_found
from services.api.gate import CALLER
from services.api.models import (
    METADATA_KEYS,
    Page,
    Retrieve,
    metadata_text,
)
from services.api.objects import Deleted, DeliveryObject, Listing
from services.api.once import once
from services.api.operation import Operation
from services.api.routes.deliveries import delivery_object
from services.api.store.deliveries import find_delivery
from services.api.store.endpoints import (
    begin_subscription,
    delete_webhook_endpoint,
    end_subscription,
    find_webhook_endpoint,
    insert_webhook_endpoint,
    list_webhook_endpoints,
    rotate_secret,
    update_webhook_endpoint,
)
from services.api.store.replays import insert_test
from services.api.webhook_models import (
    CreateWebhookEndpoint,
    RotateSecret,
    TestEndpoint,
    UpdateWebhookEndpoint,
)
from shared.db import Connection
from shared.event import make_event
from shared.event_types import ENDPOINT_TEST
from shared.ids import new_id
from shared.webhook_endpoint import (
    WebhookEndpointObject,
    new_signing_secret,
    webhook_endpoint_object,
)


def _sealed_headers(request: web.Request, headers: dict[str, str]) -> str | None:
    return request.app[CONTEXT].seal.close(json.dumps(headers)) if headers else None


async def create(request: web.Request) -> web.Response:
    """Subscribe a URL to events, from now on. The answer has the signing secret, this once."""
    body = await read_body(request, CreateWebhookEndpoint)

    async def subscribe(transaction: Connection) -> WebhookEndpointObject:
        secret = new_signing_secret()
        endpoint = await insert_webhook_endpoint(
            transaction,
            account_id=request[CALLER].account_id,
            id_=new_id("we"),
            url=body.url,
            enabled_events=body.enabled_events,
            description=body.description,
            metadata=metadata_text(body.metadata),
            secret=request.app[CONTEXT].seal.close(secret),
            custom_headers=_sealed_headers(request, body.custom_headers),
            custom_header_names=sorted(body.custom_headers),
        )
        return {**webhook_endpoint_object(endpoint), "secret": secret}

    return await once(request, "webhook_endpoints", body, subscribe)


async def update(request: web.Request) -> web.Response:
    """Change where an endpoint is or what it hears of, disable it, or enable it again.

    Events that happened before still go to whom they went when they happened. Metadata is merged;
    an empty value removes its key.
    """
    body = await read_body(request, UpdateWebhookEndpoint)
    account_id, id_ = request[CALLER].account_id, path_id(request)

    async def change(transaction: Connection) -> WebhookEndpointObject:
        updated = await update_webhook_endpoint(
            transaction,
            account_id,
            id_,
            url=body.url,
            description=body.description,
            metadata=metadata_text(body.metadata) if body.metadata is not None else None,
            custom_headers=_sealed_headers(request, body.custom_headers or {}),
            custom_header_names=None
            if body.custom_headers is None
            else sorted(body.custom_headers),
            disabled=body.disabled,
        )
        endpoint = await find_webhook_endpoint(transaction, account_id, id_)
        if not updated or endpoint is None:
            raise not_found("webhook endpoint", id_)
        shown = webhook_endpoint_object(endpoint)
        if len(shown["metadata"]) > METADATA_KEYS:
            raise invalid(
                Code.PARAMETER_INVALID,
                f"With this, metadata would have {len(shown['metadata'])} keys; it may have"
                f" {METADATA_KEYS}. An empty value removes its key.",
                "metadata",
            )
        events = body.enabled_events
        if events is not None and events != shown["enabled_events"]:
            until = await end_subscription(transaction, account_id, id_)
            await begin_subscription(transaction, account_id, id_, events, until)
            shown["enabled_events"] = events
        return shown

    return await once(request, f"webhook_endpoints/{id_}", body, change)


async def rotate(request: web.Request) -> web.Response:
    """Sign with a new secret from now on. The answer has it, this once.

    For a day, or as long as `overlap` says, requests carry signatures of both secrets, so that
    receivers can be changed one after the other.
    """
    body = await read_body(request, RotateSecret)
    account_id, id_ = request[CALLER].account_id, path_id(request)

    async def change(transaction: Connection) -> WebhookEndpointObject:
        secret = new_signing_secret()
        sealed = request.app[CONTEXT].seal.close(secret)
        rotated = await rotate_secret(
            transaction, account_id, id_, secret=sealed, overlap=body.overlap
        )
        endpoint = await find_webhook_endpoint(transaction, account_id, id_)
        if not rotated or endpoint is None:
            raise not_found("webhook endpoint", id_)
        return {**webhook_endpoint_object(endpoint), "secret": secret}

    return await once(request, f"webhook_endpoints/{id_}/rotate_secret", body, change)


async def test(request: web.Request) -> web.Response:
    """Send an endpoint, and it alone, a `webhook_endpoint.test` event about itself.

    The answer is the delivery; retrieve it to see what the endpoint answered.
    """
    body = await read_body(request, TestEndpoint)
    account_id, id_ = request[CALLER].account_id, path_id(request)

    async def send(transaction: Connection) -> DeliveryObject:
        endpoint = await find_webhook_endpoint(transaction, account_id, id_)
        if endpoint is None:
            raise not_found("webhook endpoint", id_)
        if endpoint.disabled_at is not None:
            raise invalid(
                Code.DELIVERY_NOT_REPEATABLE,
                "The endpoint is disabled: enable it with `disabled=false`.",
                "id",
            )
        event_id, delivery_id = new_id("evt"), new_id("dlv")
        event = make_event(
            account_id,
            ENDPOINT_TEST,
            event_id,
            webhook_endpoint_object(endpoint),
            datetime.now(UTC),
            id_=event_id,
        )
        await insert_test(transaction, event, endpoint_id=id_, delivery_id=delivery_id)
        delivery = await find_delivery(transaction, account_id, delivery_id)
        assert delivery is not None  # noqa: S101 - it is this transaction's
        return delivery_object(delivery)

    return await once(request, f"webhook_endpoints/{id_}/test", body, send)


async def retrieve(request: web.Request) -> web.Response:
    """One endpoint."""
    read_query(request, Retrieve)
    id_ = path_id(request)
    endpoint = await find_webhook_endpoint(
        request.app[CONTEXT].database, request[CALLER].account_id, id_
    )
    if endpoint is None:
        raise not_found("webhook endpoint", id_)
    return answer(webhook_endpoint_object(endpoint))


async def list_(request: web.Request) -> web.Response:
    """Endpoints, newest first."""
    query = read_query(request, Page)
    found = await list_webhook_endpoints(
        request.app[CONTEXT].database, request[CALLER].account_id, span_of(query)
    )
    return page("/v1/webhook_endpoints", query, found, webhook_endpoint_object)


async def delete(request: web.Request) -> web.Response:
    """Unsubscribe.

    First attempts that are under way or wait are still made; nothing is sent again, and what is
    held is not sent.
    """
    id_ = path_id(request)
    account_id = request[CALLER].account_id
    async with request.app[CONTEXT].database.transaction() as transaction:
        if not await delete_webhook_endpoint(transaction, account_id, id_):
            raise not_found("webhook endpoint", id_)
        await end_subscription(transaction, account_id, id_)
    gone: Deleted = {"id": id_, "object": "webhook_endpoint", "deleted": True}
    return answer(gone)


OPERATIONS: Final = (
    Operation(
        "POST", "/webhook_endpoints", create, WebhookEndpointObject, body=CreateWebhookEndpoint
    ),
    Operation("GET", "/webhook_endpoints", list_, Listing[WebhookEndpointObject], query=Page),
    Operation("GET", "/webhook_endpoints/{id}", retrieve, WebhookEndpointObject, query=Retrieve),
    Operation(
        "POST",
        "/webhook_endpoints/{id}",
        update,
        WebhookEndpointObject,
        body=UpdateWebhookEndpoint,
    ),
    Operation(
        "POST",
        "/webhook_endpoints/{id}/rotate_secret",
        rotate,
        WebhookEndpointObject,
        body=RotateSecret,
    ),
    Operation("POST", "/webhook_endpoints/{id}/test", test, DeliveryObject, body=TestEndpoint),
    Operation("DELETE", "/webhook_endpoints/{id}", delete, Deleted),
)
