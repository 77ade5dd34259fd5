"""What handlers may use, and how they read a request and write an answer."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from services.api import form, strict_json
from services.api.accept import Acceptor
from services.api.codes import Code
from services.api.errors import Problem, from_validation, invalid
from services.api.form import InvalidForm
from services.api.models import Page, Request, TimedPage
from services.api.reserve import Reserver
from services.api.store.pages import Span
from services.api.strict_json import InvalidJson
from shared.broker import Publisher
from shared.db import Database
from shared.json_text import to_json
from shared.lifecycle import Lifecycle
from shared.sealing import Seal

MAX_BODY: Final = 1024 * 1024
_JSON: Final = "application/json"
_JSON_HEADERS: Final = {"Content-Type": f"{_JSON}; charset=utf-8"}
M = TypeVar("M", bound=Request)
T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """Everything that a handler needs, built in app.py."""

    database: Database
    acceptor: Acceptor
    reserver: Reserver
    publisher: Publisher
    seal: Seal
    lifecycle: Lifecycle
    started_at: float
    """Monotonic seconds."""
    streams: Counter[str] = field(default_factory=Counter)
    """Streams of events that are open, by account."""


CONTEXT: Final = web.AppKey("context", Context)


def answer_text(
    text: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON response that is text already. The line ends: people read these in terminals."""
    return web.Response(
        status=status,
        body=f"{text}\n".encode(),
        headers=_JSON_HEADERS if headers is None else {**_JSON_HEADERS, **headers},
    )


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return answer_text(to_json(body), status, headers)


async def read_body(request: web.Request, model: type[M]) -> M:
    """The request's body, JSON or a form, as `model`. Raises a Problem that names the parameter."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise invalid(
            Code.ENCODING_UNSUPPORTED, "Send the body without Content-Encoding.", None, 415
        )
    body = await request.read()
    if not body:  # as `curl -X POST` sends it: no parameters
        return _validate(model, {})
    # A body without a Content-Type is taken for what nearly everybody means.
    kind = request.content_type if "Content-Type" in request.headers else _JSON
    try:
        match kind:
            case "application/json":
                value = strict_json.parse(body)
            case "application/x-www-form-urlencoded":
                value = form.parse(body)
                strict_json.check_texts(value)
            case _:
                raise invalid(
                    Code.CONTENT_TYPE_UNSUPPORTED,
                    f"The body is {kind[:80]!r}; send `Content-Type: application/json`.",
                    None,
                    415,
                )
    except (InvalidJson, InvalidForm) as error:
        raise invalid(Code.BODY_INVALID, str(error)) from None
    if not isinstance(value, dict):
        raise invalid(Code.BODY_INVALID, "The body must be a JSON object.")
    return _validate(model, value)


_LISTED: Final = re.compile(r"(\w+)\[\d*\]", re.ASCII)


def read_query(request: web.Request, model: type[M]) -> M:
    """The query string as `model`. Raises a Problem that names the parameter."""
    values: dict[str, Any] = {}
    for name, value in request.query.items():
        try:
            strict_json.check_text(name)
            strict_json.check_text(value)
        except InvalidJson as error:
            raise invalid(Code.PARAMETER_INVALID, str(error), name.replace("\0", "")) from None
        listed = _LISTED.fullmatch(name)
        if listed is not None:  # types[]=a or types[0]=a
            found = values.setdefault(listed[1], [])
            if not isinstance(found, list):
                raise invalid(
                    Code.PARAMETER_INVALID, f"{listed[1]} is a value and a list at once.", name
                )
            found.append(value)
        elif name in values:
            raise invalid(Code.PARAMETER_INVALID, f"{name} stands twice in the query.", name)
        else:
            values[name] = value
    if "starting_after" in values and "ending_before" in values:
        raise invalid(
            Code.PARAMETER_INVALID,
            "Give starting_after or ending_before, not both.",
            "ending_before",
        )
    return _validate(model, values)


def idempotency_key(request: web.Request) -> str | None:
    """The Idempotency-Key header, raw. Raises a Problem when it cannot be one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= 255 or not key.isprintable():
        raise Problem(
            400,
            "idempotency_error",
            Code.IDEMPOTENCY_KEY_INVALID,
            "Idempotency-Key must have 1 to 255 printable characters.",
            param="Idempotency-Key",
        )
    return key


def path_id(request: web.Request) -> str:
    """The id in the path, as text that Postgres can compare; what it cannot, matches nothing."""
    raw = request.match_info["id"].encode("utf-8", errors="replace").decode()
    return raw.replace("\0", "\ufffd")


def span_of(query: Page) -> Span:
    """The rows that a query asks for, and one more, which says whether there are more."""
    return Span(
        limit=query.limit + 1,
        after=query.starting_after,
        before=query.ending_before,
        since=query.since if isinstance(query, TimedPage) else None,
        until=query.until if isinstance(query, TimedPage) else None,
    )


def page(
    url: str, query: Page, found: Sequence[T], show: Callable[[T], Mapping[str, Any]]
) -> web.Response:
    """A list object from the rows of `span_of(query)`, newest first.

    The row too many is the last going down in time, and the first going up.
    """
    has_more = len(found) > query.limit
    rows = found[-query.limit :] if query.ending_before is not None else found[: query.limit]
    return answer(
        {"object": "list", "url": url, "has_more": has_more, "data": [show(row) for row in rows]}
    )


def _validate(model: type[M], values: dict[str, Any]) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = [field.alias or name for name, field in model.model_fields.items()]
        raise from_validation(error, known) from None
