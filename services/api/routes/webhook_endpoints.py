"""/webhook_endpoints: where events are sent."""

import base64
import json
import secrets
from typing import Any

from aiohttp import web

from services.api import store
from services.api.context import CONTEXT, answer, page, path_id, read_body, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.models import CreateWebhookEndpoint, Page, metadata_text
from shared.ids import new_id

SECRET_BYTES = 32


def endpoint_object(endpoint: store.WebhookEndpoint) -> dict[str, Any]:
    """The public form of an endpoint. Its secret is shown when it is made, and never again."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "enabled_events": endpoint.enabled_events,
        "description": endpoint.description,
        "metadata": json.loads(endpoint.metadata),
        "status": "enabled",
        "livemode": False,
        "created": int(endpoint.created_at.timestamp()),
    }


async def create(request: web.Request) -> web.Response:
    """Subscribe a URL to events, from now on. The answer has the signing secret, this once."""
    body = await read_body(request, CreateWebhookEndpoint)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
    endpoint = await store.insert_webhook_endpoint(
        request.app[CONTEXT].database,
        account_id=request[CALLER].account_id,
        id_=new_id("we"),
        url=body.url,
        enabled_events=sorted(set(body.enabled_events)),
        description=body.description,
        metadata=metadata_text(body.metadata),
        secret=secret,
    )
    return answer(endpoint_object(endpoint) | {"secret": secret})


async def retrieve(request: web.Request) -> web.Response:
    """One endpoint."""
    id_ = path_id(request)
    endpoint = await store.find_webhook_endpoint(
        request.app[CONTEXT].database, request[CALLER].account_id, id_
    )
    if endpoint is None:
        raise not_found("webhook endpoint", id_)
    return answer(endpoint_object(endpoint))


async def list_(request: web.Request) -> web.Response:
    """Endpoints, newest first."""
    query = read_query(request, Page)
    found = await store.list_webhook_endpoints(
        request.app[CONTEXT].database, request[CALLER].account_id, span_of(query)
    )
    return page("/v1/webhook_endpoints", query, found, endpoint_object)


async def delete(request: web.Request) -> web.Response:
    """Unsubscribe. Events that happened before are still delivered."""
    id_ = path_id(request)
    deleted = await store.delete_webhook_endpoint(
        request.app[CONTEXT].database, request[CALLER].account_id, id_
    )
    if not deleted:
        raise not_found("webhook endpoint", id_)
    return answer({"id": id_, "object": "webhook_endpoint", "deleted": True})


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes under `prefix`."""
    return [
        web.post(f"{prefix}/webhook_endpoints", create),
        web.get(f"{prefix}/webhook_endpoints", list_),
        web.get(f"{prefix}/webhook_endpoints/{{id}}", retrieve),
        web.delete(f"{prefix}/webhook_endpoints/{{id}}", delete),
    ]
