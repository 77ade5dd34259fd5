"""/events: what happened, as it was told to whoever subscribed."""

import json
from typing import Final

from aiohttp import web

from services.api.context import CONTEXT, answer, page, path_id, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.models import ListEvents, Retrieve
from services.api.objects import EventObject, Listing
from services.api.operation import Operation
from services.api.store.events import find_event, list_events


def event_object(found: tuple[str, int]) -> EventObject:
    """The event as it was sent, and how many endpoints have still to hear it."""
    body, pending = found
    event: EventObject = json.loads(body)
    event["pending_webhooks"] = pending
    return event


async def retrieve(request: web.Request) -> web.Response:
    """One event."""
    read_query(request, Retrieve)
    id_ = path_id(request)
    found = await find_event(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if found is None:
        raise not_found("event", id_)
    return answer(event_object(found))


async def list_(request: web.Request) -> web.Response:
    """Events, newest first."""
    query = read_query(request, ListEvents)
    types = [*([query.type] if query.type else []), *(query.types or [])]
    found = await list_events(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        types=types or None,
    )
    return page("/v1/events", query, found, event_object)


OPERATIONS: Final = (
    Operation("GET", "/events", list_, Listing[EventObject], query=ListEvents),
    Operation("GET", "/events/{id}", retrieve, EventObject, query=Retrieve),
)
