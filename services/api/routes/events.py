"""/events: what happened, as it was told to whoever subscribed."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from services.api.auth import CACHE_SECONDS
from services.api.codes import Code
from services.api.context import CONTEXT, answer, page, path_id, read_query, span_of
from services.api.errors import Problem, invalid, not_found, unavailable
from services.api.gate import AUTHENTICATOR, CALLER
from services.api.models import ListEvents, Retrieve, StreamEvents
from services.api.objects import EventObject, Listing
from services.api.operation import Operation
from services.api.store.events import (
    find_event,
    last_sequence,
    list_events,
    list_events_after,
)
from shared.errors import Transient
from shared.lifecycle import Phase

MOST_STREAMS: Final = 10
"""Streams of one account that one process serves at once."""
MOST_IN_ALL: Final = 200
LONGEST_WRITE: Final = 30.0
"""Seconds that a client may take to read what it was sent."""
LOOK_EVERY: Final = 0.25
"""Seconds between looks for events, for each stream."""
PING_AFTER: Final = 15.0
"""Seconds of silence after which a proxy, and the client, are told that all is well."""
AT_ONCE: Final = 100


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


async def stream(request: web.Request) -> web.StreamResponse:
    """Events as they happen, as server-sent events.

    Each has its number as id, so that a client that was cut off goes on where it was; its type as
    event; and as data the bytes that webhooks carry. The first, `ready`, says where it begins.
    """
    query = read_query(request, StreamEvents)
    context, account_id = request.app[CONTEXT], request[CALLER].account_id
    last = await _where_to_begin(request, query)
    if context.streams[account_id] >= MOST_STREAMS or context.streams.total() >= MOST_IN_ALL:
        raise unavailable(f"{MOST_STREAMS} streams of an account may be open; close one.", 30)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # proxies buffer what they are not told to pass on
        }
    )
    context.streams[account_id] += 1
    try:
        await response.prepare(request)
        await response.write(f"event: ready\nid: {last}\ndata: {{}}\n\n".encode())
        await _tell(request, response, last, query.types)
    except (ConnectionError, TimeoutError, Transient, Problem):
        pass  # the client has enough, reads no more, or comes again with the number it has seen
    finally:
        context.streams[account_id] -= 1
        if not context.streams[account_id]:
            del context.streams[account_id]
    return response


async def _where_to_begin(request: web.Request, query: StreamEvents) -> int:
    seen = request.headers.get("Last-Event-ID", "")
    if seen:
        if not seen.isascii() or not seen.isdecimal() or len(seen) > 18:
            raise invalid(
                Code.PARAMETER_INVALID,
                "Last-Event-ID must be the number of an event.",
                "Last-Event-ID",
            )
        return int(seen)
    if query.after is not None:
        return query.after
    return await last_sequence(request.app[CONTEXT].database, request[CALLER].account_id)


async def _tell(
    request: web.Request, response: web.StreamResponse, last: int, types: Sequence[str] | None
) -> None:
    """Write events until the client goes, its key is revoked, or the service drains."""
    context, account_id = request.app[CONTEXT], request[CALLER].account_id
    quiet_since = checked_at = time.monotonic()
    while context.lifecycle.phase is not Phase.DRAINING:
        now = time.monotonic()
        if now - checked_at > CACHE_SECONDS:
            await request[AUTHENTICATOR].authenticate(request.headers, now)
            checked_at = now
        found = await list_events_after(context.database, account_id, last, limit=AT_ONCE)
        last = found[-1][0] if found else last
        told = [
            f"event: {t}\nid: {n}\ndata: {body}\n\n"
            for n, t, body in found
            if types is None or t in types
        ]
        if not told and now - quiet_since > PING_AFTER:
            # With the number up to which there was nothing to tell.
            told = [f": still here\nid: {last}\n\n"]
        if told:
            async with asyncio.timeout(LONGEST_WRITE):
                await response.write("".join(told).encode())
            quiet_since = now
        if len(found) < AT_ONCE:
            await asyncio.sleep(LOOK_EVERY)


OPERATIONS: Final = (
    Operation("GET", "/events", list_, Listing[EventObject], query=ListEvents),
    Operation("GET", "/events/stream", stream, None, query=StreamEvents, stream=True),
    Operation("GET", "/events/{id}", retrieve, EventObject, query=Retrieve),
)
