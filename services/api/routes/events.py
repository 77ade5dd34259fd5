"""/events: what happened, as it was told to whoever subscribed."""

import json
from typing import Any

from aiohttp import web

from services.api import store
from services.api.context import CONTEXT, answer, page, path_id, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.models import ListEvents


def event_object(found: tuple[str, int]) -> dict[str, Any]:
    """The event as it was sent, and how many endpoints have still to hear it."""
    body, pending = found
    event: dict[str, Any] = json.loads(body)
    return event | {"pending_webhooks": pending}


async def retrieve(request: web.Request) -> web.Response:
    """One event."""
    id_ = path_id(request)
    found = await store.find_event(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if found is None:
        raise not_found("event", id_)
    return answer(event_object(found))


async def list_(request: web.Request) -> web.Response:
    """Events, newest first."""
    query = read_query(request, ListEvents)
    types = [*([query.type] if query.type else []), *(query.types or [])]
    found = await store.list_events(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        types=types or None,
    )
    return page("/v1/events", query, found, event_object)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes under `prefix`."""
    return [web.get(f"{prefix}/events", list_), web.get(f"{prefix}/events/{{id}}", retrieve)]
