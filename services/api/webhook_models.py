"""What clients may send about webhooks."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from services.api.models import (
    Description,
    EventType,
    Flag,
    Listed,
    Metadata,
    Moment,
    Page,
    Request,
    Text,
    is_text,
    is_whole,
    listed,
)
from shared.event_types import EVENT_TYPES, EVERY_TYPE


def _is_http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an absolute http or https URL, such as https://example.com/hook")
    if parts.username or parts.password:
        raise ValueError("must not carry a user or password: requests are signed instead")
    if any(character <= " " or character == "\x7f" for character in value):
        raise ValueError("must not contain spaces or control characters")
    return value


def _is_known_event(value: str) -> str:
    if value != EVERY_TYPE and value not in EVENT_TYPES:
        raise ValueError(f"must be {EVERY_TYPE} or one of {', '.join(EVENT_TYPES)}")
    return value


_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_OURS = {
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
    "host", "keep-alive", "proxy-authorization", "proxy-connection", "stripe-signature", "te",
    "trailer", "transfer-encoding", "upgrade", "user-agent", "webhook-id", "webhook-signature",
    "webhook-timestamp",
}  # fmt: skip
"""Headers that Florin sends itself, or that would change how the request is read (RFC 9110)."""


def _is_header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("is not the name of a header, such as X-Tenant")
    if value.lower() in _OURS:
        raise ValueError("is a header that Florin sets itself: leave it out")
    return value


def _is_header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("must be visible ASCII characters, with spaces between them at most")
    return value


def _are_distinct(headers: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("has one header twice: their names differ in case alone")
    return headers


Url = Annotated[str, Field(max_length=2048), AfterValidator(_is_http_url), BeforeValidator(is_text)]
HeaderName = Annotated[
    str, Field(max_length=100), AfterValidator(_is_header_name), BeforeValidator(is_text)
]
HeaderValue = Annotated[
    str, Field(max_length=2000), AfterValidator(_is_header_value), BeforeValidator(is_text)
]
CustomHeaders = Annotated[
    dict[HeaderName, HeaderValue], Field(max_length=20), AfterValidator(_are_distinct)
]
EnabledEvents = Annotated[
    list[
        Annotated[
            Text,
            AfterValidator(_is_known_event),
            WithJsonSchema({"type": "string", "enum": [EVERY_TYPE, *EVENT_TYPES]}),
        ]
    ],
    Field(min_length=1, max_length=100),
    AfterValidator(
        lambda types: sorted(set(types))
    ),  # which stand there matters, not in what order
    BeforeValidator(listed),
]


class CreateWebhookEndpoint(Request):
    """`POST /webhook_endpoints`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/hook", "enabled_events": ["*"]}]
        }
    )

    url: Url
    enabled_events: EnabledEvents
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)
    custom_headers: CustomHeaders = Field(default_factory=dict)


class UpdateWebhookEndpoint(Request):
    """`POST /webhook_endpoints/{id}`: what is given changes. Metadata is merged, and an empty value
    removes its key; custom headers are replaced. While an endpoint is `disabled`, what it was to
    hear is held, and sent, in order of time, when it is enabled again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"enabled_events": ["payment.completed"]}]}
    )

    url: Url | None = None
    enabled_events: EnabledEvents | None = None
    description: Description | None = None
    metadata: Metadata | None = None
    custom_headers: CustomHeaders | None = None
    disabled: Flag | None = None


class RotateSecret(Request):
    """`POST /webhook_endpoints/{id}/rotate_secret`: for `overlap` seconds, requests are signed with
    the old secret too."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"overlap": 3600}]})

    overlap: Annotated[int, Field(ge=0, le=604_800), BeforeValidator(is_whole)] = 86_400


class ListDeliveriesOfEndpoint(Page):
    """The query of `GET /webhook_endpoints/{id}/deliveries`."""

    status: Literal["dead", "retrying", "held"] | None = None


class ListDeliveries(Page):
    """The query of `GET /deliveries`: of all endpoints, and with `status=dead` the dead letters."""

    status: Literal["dead"] | None = None


class TestEndpoint(Request):
    """`POST /webhook_endpoints/{id}/test`: it has no parameters."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})


class Replay(Request):
    """`POST /webhook_endpoints/{id}/replay`: events that happened from `since` and before `until`
    (Unix seconds; now, when it is left out) are sent once more, whatever became of them, and also
    those that were never sent to this endpoint. `types` are those to which it is subscribed, unless
    others are given. With `only_dead`, what is dead alone; with `dry_run`, they are counted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"since": 1767225600, "dry_run": True}, {"since": 0, "only_dead": True}]
        }
    )

    since: Moment
    until: Moment | None = None
    types: Annotated[Listed[EventType], Field(min_length=1, max_length=20)] | None = None
    only_dead: Flag = False
    dry_run: Flag = False


class CancelReplay(Request):
    """`POST /replays/{id}/cancel`: it has no parameters."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})


class Redeliver(Request):
    """`POST /deliveries/{id}/redeliver`: it has no parameters."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})
