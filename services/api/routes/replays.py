"""/replays: events that are sent to an endpoint once more, and how far that is."""

from datetime import UTC, datetime
from typing import Final, Literal

from aiohttp import web

from services.api.codes import Code
from services.api.context import CONTEXT, answer, page, path_id, read_body, read_query, span_of
from services.api.errors import invalid, not_found
from services.api.gate import CALLER
from services.api.models import Page, Retrieve
from services.api.objects import Listing, ReplayObject
from services.api.once import once
from services.api.operation import Operation
from services.api.store.endpoints import find_webhook_endpoint
from services.api.store.replays import (
    Replay,
    cancel_replay,
    count_events,
    find_replay,
    insert_replay,
    list_replays,
)
from services.api.webhook_models import CancelReplay
from services.api.webhook_models import Replay as AskReplay
from shared.db import Connection
from shared.event_types import EVENT_TYPES, EVERY_TYPE
from shared.ids import new_id
from shared.payment import iso


def replay_object(replay: Replay) -> ReplayObject:
    """The public form of a replay."""
    status: Literal["running", "finished", "canceled"] = "running"
    if replay.finished_at:
        status = "canceled" if replay.canceled else "finished"
    return {
        "id": replay.id,
        "object": "replay",
        "webhook_endpoint": replay.endpoint_id,
        "status": status,
        "since": iso(replay.since),
        "until": iso(replay.until),
        "types": replay.types,
        "only_dead": replay.only_dead,
        "dry_run": False,
        "events": replay.events,
        "sent_again": replay.sent_again,
        "sent_first": replay.sent_first,
        "passed_over": replay.passed_over,
        "created": int(replay.created_at.timestamp()),
        "finished_at": iso(replay.finished_at) if replay.finished_at else None,
    }


async def create(request: web.Request) -> web.Response:
    """Send events of a span of time once more to one endpoint, whatever became of them.

    It is a job that outlives every process, goes no faster than the endpoint takes what it is sent,
    and includes events that were never sent there. `dry_run` counts them and does nothing.
    """
    body = await read_body(request, AskReplay)
    account_id, id_ = request[CALLER].account_id, path_id(request)
    since = datetime.fromtimestamp(body.since, UTC)
    until = datetime.now(UTC)
    if body.until is not None:
        until = datetime.fromtimestamp(body.until, UTC)
    if until <= since:
        raise invalid(Code.PARAMETER_INVALID, "until must be later than since.", "until")

    async def ask(transaction: Connection) -> ReplayObject:
        endpoint = await find_webhook_endpoint(transaction, account_id, id_)
        if endpoint is None:
            raise not_found("webhook endpoint", id_)
        types = sorted(set(body.types or endpoint.enabled_events))
        if EVERY_TYPE in types:
            types = list(EVENT_TYPES)
        only_dead = body.only_dead
        events = await count_events(
            transaction,
            account_id,
            id_,
            since=since,
            until=until,
            types=types,
            only_dead=only_dead,
        )
        if body.dry_run:
            now = datetime.now(UTC)
            counted = Replay(
                "", id_, since, until, types, only_dead, events, 0, 0, 0, now, None, canceled=False
            )
            return {**replay_object(counted), "id": None, "dry_run": True, "status": "counted"}
        replay = await insert_replay(
            transaction,
            account_id=account_id,
            id_=new_id("rpl"),
            endpoint_id=id_,
            since=since,
            until=until,
            types=types,
            only_dead=only_dead,
            events=events,
        )
        return replay_object(replay)

    return await once(request, f"webhook_endpoints/{id_}/replay", body, ask)


async def list_of_endpoint(request: web.Request) -> web.Response:
    """Replays to one endpoint, newest first."""
    query = read_query(request, Page)
    database, account_id = request.app[CONTEXT].database, request[CALLER].account_id
    endpoint_id = path_id(request)
    if await find_webhook_endpoint(database, account_id, endpoint_id) is None:
        raise not_found("webhook endpoint", endpoint_id)
    found = await list_replays(database, account_id, endpoint_id, span_of(query))
    return page(f"/v1/webhook_endpoints/{endpoint_id}/replays", query, found, replay_object)


async def retrieve(request: web.Request) -> web.Response:
    """One replay, and how far it is."""
    read_query(request, Retrieve)
    id_ = path_id(request)
    replay = await find_replay(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if replay is None:
        raise not_found("replay", id_)
    return answer(replay_object(replay))


async def cancel(request: web.Request) -> web.Response:
    """End a replay where it is. What it has made due is still sent."""
    body = await read_body(request, CancelReplay)
    account_id, id_ = request[CALLER].account_id, path_id(request)

    async def end(transaction: Connection) -> ReplayObject:
        await cancel_replay(transaction, account_id, id_)
        replay = await find_replay(transaction, account_id, id_)
        if replay is None:
            raise not_found("replay", id_)
        return replay_object(replay)

    return await once(request, f"replays/{id_}/cancel", body, end)


OPERATIONS: Final = (
    Operation("POST", "/webhook_endpoints/{id}/replay", create, ReplayObject, body=AskReplay),
    Operation(
        "GET",
        "/webhook_endpoints/{id}/replays",
        list_of_endpoint,
        Listing[ReplayObject],
        query=Page,
    ),
    Operation("GET", "/replays/{id}", retrieve, ReplayObject, query=Retrieve),
    Operation("POST", "/replays/{id}/cancel", cancel, ReplayObject, body=CancelReplay),
)
