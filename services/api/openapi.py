"""OpenAPI 3.1, written from the operations and from the very models that validate."""

import inspect
from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter

from services.api.models import Request
from services.api.objects import ErrorAnswer, EventObject, Ready, RefundAnswer
from services.api.operation import Operation
from shared.event_types import ENDPOINT_TEST, EVENT_TYPES
from shared.payment import PaymentObject
from shared.refund import RefundObject
from shared.version import VERSION
from shared.webhook_endpoint import WebhookEndpointObject

_REF: Final = "#/components/schemas/{model}"
_ABOUT: Final = """\
Payments, charges and refunds: accepted durably, settled into a double-entry ledger, told by signed
webhooks.

The same resources are at `/api/v1` and, for Stripe's SDKs, at `/v1`. Bodies are JSON, or forms with
nested brackets. Amounts are minor units, but for `/payments`, which speaks major units. Lists are
newest first.

**Errors** have one envelope, `{"error": {"type", "code", "message", "param"?, "request_id"}}`: the
message says what to do, and `param` which parameter it is about.

**Idempotency**: send an `Idempotency-Key` with every POST. The same key with the same body brings
the same answer, with `Idempotent-Replayed: true`, however often and wherever it is sent.
"""
_ERRORS: Final = {
    400: "The request is wrong; `param` says where and `message` what to do.",
    401: "The API key is missing, wrong or revoked.",
    403: "The key, or where the request comes from, does not allow this.",
    404: "There is no such object in this account.",
    413: "The body is larger than 1 MiB.",
    415: "The body has a content type or an encoding that is not understood.",
    429: "Too many requests of this user; `Retry-After` says when to try again.",
    503: "Not now; try again, unchanged, after `Retry-After` seconds.",
}


_SUBJECTS: Final = {
    "payment": PaymentObject,
    "refund": RefundObject,
    "webhook_endpoint": WebhookEndpointObject,
}
"""What an event is about, by the beginning of its type."""


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of `operations`."""
    answers = [operation.answer for operation in operations if operation.answer is not None]
    bodies = [operation.body for operation in operations if operation.body is not None]
    outgoing = [*answers, ErrorAnswer, EventObject, *_SUBJECTS.values()]
    by_type, schemas = _schemas(outgoing, bodies)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, by_type)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Florin", "version": VERSION, "description": _ABOUT},
        "servers": [
            {"url": "/api/v1"},
            {"url": "/v1", "description": "where Stripe's SDKs look"},
        ],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "webhooks": {type_: _webhook(type_, by_type) for type_ in (*EVENT_TYPES, ENDPOINT_TEST)},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`sk_…`"},
                "basic": {"type": "http", "scheme": "basic", "description": "the key as user"},
            },
        },
    }


def _schemas(
    outgoing: Sequence[Any], incoming: Sequence[Any]
) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """For each type the schema that refers to it, and the schemas that are referred to."""
    inputs: list[tuple[Any, Any, TypeAdapter[Any]]] = [
        *((type_, "serialization", TypeAdapter(type_)) for type_ in outgoing),
        *((type_, "validation", TypeAdapter(type_)) for type_ in incoming),
    ]
    found, rest = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    return {type_: schema for (type_, _), schema in found.items()}, rest.get("$defs", {})


def _operation(operation: Operation, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(operation.handler) or "").partition("\n\n")
    described: dict[str, Any] = {
        "operationId": operation.name.replace(".", "_"),
        "tags": [operation.name.partition(".")[0]],
        "summary": summary.replace("\n", " ").removesuffix("."),
        "parameters": _parameters(operation),
        "responses": _responses(operation, by_type),
    }
    if description:
        described["description"] = description
    if operation.body is not None:
        schema = by_type[operation.body]
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": schema},
                "application/x-www-form-urlencoded": {"schema": schema},
            },
        }
    if operation.open:
        described["security"] = []
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{id}" in operation.path:
        found.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if operation.query is not None:
        found += _query(operation.query)
    if operation.method == "POST":
        about = "The same key with the same body brings the same answer."
        found.append(_header("Idempotency-Key", about, minLength=1, maxLength=255))
    if operation.stream:
        about = "The number of the last event that was seen: the stream goes on behind it."
        found.append(_header("Last-Event-ID", about, maxLength=18))
    if not operation.open:
        about = "The user whose rate limit this request counts against; else the key's."
        found.append(_header("X-User-ID", about, maxLength=255))
    return found


def _header(name: str, about: str, **schema: int) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": about,
        "schema": {"type": "string"} | schema,
    }


def _query(model: type[Request]) -> list[dict[str, Any]]:
    whole = TypeAdapter(model).json_schema(by_alias=True)
    found = []
    for name, schema in whole.get("properties", {}).items():
        shown = _plain(schema, whole.get("$defs", {}))
        listed = shown.get("type") == "array"
        found.append(
            {"name": f"{name}[]" if listed else name, "in": "query", "schema": shown}
            | ({"style": "form", "explode": True} if listed else {})
        )
    return found


def _plain(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter, by itself. What is not given is left out: there is no null."""
    [option] = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    merged = schema | option
    if "$ref" in merged:
        merged |= definitions[merged["$ref"].rpartition("/")[2]]
    if merged.get("default", 0) is None:
        del merged["default"]
    return {k: v for k, v in merged.items() if k not in ("anyOf", "title", "$ref")}


def _responses(operation: Operation, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    text = "text/event-stream" if operation.stream else "text/plain"
    content: dict[str, Any] = (
        {"application/json": {"schema": by_type[operation.answer]}}
        if operation.answer is not None
        else {text: {"schema": {"type": "string"}}}
    )
    responses: dict[str, Any] = {
        str(operation.status): {"description": "Done.", "content": content}
    }
    if operation.answer is Ready:
        responses["503"] = {"description": "Not ready.", "content": content}
    error = {"application/json": {"schema": by_type[ErrorAnswer]}}
    for status in _statuses(operation):
        responses.setdefault(str(status), {"description": _ERRORS[status], "content": error})
    for response in responses.values():
        response["headers"] = {"Request-Id": {"schema": {"type": "string"}, "required": True}}
    return responses


def _statuses(operation: Operation) -> list[int]:
    """The errors that an operation may answer with."""
    if operation.open:
        return [403]
    statuses = [400, 401, 403, 429, 503]
    if "{id}" in operation.path or operation.answer is RefundAnswer:
        statuses.append(404)
    if operation.body is not None:
        statuses += [413, 415]
    return sorted(statuses)


def _webhook(type_: str, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    subject = _SUBJECTS[type_.partition(".")[0]]
    about = {"type": "object", "properties": {"object": by_type[subject]}}
    event = {
        "allOf": [
            by_type[EventObject],
            {"properties": {"type": {"const": type_}, "data": about}},
        ]
    }
    names = ("webhook-id", "webhook-timestamp", "webhook-signature", "Stripe-Signature")
    return {
        "post": {
            "operationId": type_.replace(".", "_"),
            "tags": ["webhooks"],
            "summary": f"What an endpoint gets when it is told of {type_}",
            "parameters": [
                {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
                for name in names
            ],
            "requestBody": {"content": {"application/json": {"schema": event}}},
            "responses": {"2XX": {"description": "Heard; anything else is tried again."}},
        }
    }
