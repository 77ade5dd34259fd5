"""What clients may send. These models validate; nothing unknown passes."""

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from services.api.strict_json import JsonNumber
from shared.event_types import EVENT_TYPES, EVERY_TYPE
from shared.money import MAX_MINOR, decimals_of
from shared.states import PaymentStatus


def _is_text(value: Any) -> Any:
    if isinstance(value, JsonNumber) or not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 - pydantic wants ValueError
    return value


def _is_number_or_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('must be a number or a string such as "100.50"')  # noqa: TRY004
    return str(value)


def _is_currency(value: str) -> str:
    code = value.upper() if value.isascii() else value
    decimals_of(code)
    return code


def _is_whole(value: Any) -> int:
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal():
        raise ValueError("must be a whole number")
    if len(value) > 19:
        raise ValueError("is too large")
    return int(value)


def _is_minor_units(value: Any) -> int:
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal():
        raise ValueError("must be a whole number of minor units, such as 1000 for 10.00 USD")
    if len(value) > 19:
        raise ValueError(f"must be at most {MAX_MINOR}")
    return int(value)


def _is_flag(value: Any) -> bool:
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise ValueError("must be true or false")


def _listed(value: Any) -> Any:
    """A form's `a[0]=x&a[1]=y` or `a[]=x`: places, not names."""
    if isinstance(value, dict) and all(n.isascii() and n.isdecimal() for n in value):
        return [found for _, found in sorted(value.items(), key=lambda item: int(item[0]))]
    return value


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


def _is_event_type(value: str) -> str:
    if value not in EVENT_TYPES:
        raise ValueError(f"must be one of {', '.join(EVENT_TYPES)}")
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


# The constraint stands next to the type, so that its message speaks of characters.
T = TypeVar("T")
Listed = Annotated[list[T], BeforeValidator(_listed)]
Text = Annotated[str, BeforeValidator(_is_text)]
Id = Annotated[str, Field(min_length=1, max_length=255), BeforeValidator(_is_text)]
Description = Annotated[str, Field(max_length=1000), BeforeValidator(_is_text)]
Currency = Annotated[
    Text,
    AfterValidator(_is_currency),
    WithJsonSchema(
        {
            "type": "string",
            "description": "ISO 4217, upper or lower case",
            "minLength": 3,
            "maxLength": 3,
            "examples": ["THB"],
        }
    ),
]
MajorUnits = Annotated[
    str,
    BeforeValidator(_is_number_or_text),
    WithJsonSchema(
        {
            "type": ["number", "string"],
            "description": "Major units, exact, as a number or a string: 100.50",
            "examples": ["100.50"],
        }
    ),
]
MinorUnits = Annotated[
    int,
    Field(ge=1, le=MAX_MINOR, description="Minor units: 1000 is 10.00 USD"),
    BeforeValidator(_is_minor_units),
]
EventType = Annotated[
    str,
    AfterValidator(_is_event_type),
    BeforeValidator(_is_text),
    WithJsonSchema({"type": "string", "enum": list(EVENT_TYPES)}),
]
Flag = Annotated[bool, BeforeValidator(_is_flag)]
Moment = Annotated[int, Field(ge=0, le=4_102_444_800), BeforeValidator(_is_whole)]
Limit = Annotated[int, Field(ge=1, le=100), BeforeValidator(_is_whole)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=40), BeforeValidator(_is_text)]
MetadataValue = Annotated[str, Field(max_length=500), BeforeValidator(_is_text)]
HeaderName = Annotated[
    str, Field(max_length=100), AfterValidator(_is_header_name), BeforeValidator(_is_text)
]
HeaderValue = Annotated[
    str, Field(max_length=2000), AfterValidator(_is_header_value), BeforeValidator(_is_text)
]
CustomHeaders = Annotated[
    dict[HeaderName, HeaderValue], Field(max_length=20), AfterValidator(_are_distinct)
]
METADATA_KEYS = 50
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=METADATA_KEYS)]
Url = Annotated[
    str, Field(max_length=2048), AfterValidator(_is_http_url), BeforeValidator(_is_text)
]


class Request(BaseModel):
    """The base of everything that a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CreatePayment(Request):
    """`POST /payments`: amounts in major units."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "user123", "amount": 100.50, "currency": "THB"}]
        }
    )

    user_id: Id
    amount: MajorUnits
    currency: Currency
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)


class ChargeStatus(StrEnum):
    """What Stripe's clients know of a payment's state."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class CreateCharge(Request):
    """`POST /charges`: amounts in minor units."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"amount": 1000, "currency": "usd", "customer": "cust_123"}]
        }
    )

    amount: MinorUnits
    currency: Currency
    customer: Id | None = None
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)
    expand: Listed[Literal["balance_transaction"]] = Field(default_factory=list)


class CreateRefund(Request):
    """`POST /refunds`: of the payment that `charge`, `payment_id` or `transaction_id` names;
    of all that is left of it when no amount is given."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"charge": "pay_0193e5c8b1f27a3c9d0e4f5a6b7c8d9e", "amount": 300},
                {"transaction_id": "pay_0193e5c8b1f27a3c9d0e4f5a6b7c8d9e"},
            ]
        }
    )

    charge: Id | None = None
    payment_id: Id | None = None
    transaction_id: Id | None = None
    amount: MinorUnits | None = None
    reason: Description | None = None
    metadata: Metadata = Field(default_factory=dict)
    expand: Listed[Literal["balance_transaction"]] = Field(default_factory=list)

    @property
    def payments(self) -> dict[str, str]:
        """The payments that are named, by the parameter that names each."""
        named = {
            "charge": self.charge,
            "payment_id": self.payment_id,
            "transaction_id": self.transaction_id,
        }
        return {name: id_ for name, id_ in named.items() if id_ is not None}


class Page(Request):
    """Where in a list, newest first, and how much of it."""

    limit: Limit = 10
    starting_after: Id | None = None
    ending_before: Id | None = None


class TimedPage(Page):
    """A page of what was made in a span of time, in Unix seconds."""

    created_gt: Moment | None = Field(default=None, alias="created[gt]")
    created_gte: Moment | None = Field(default=None, alias="created[gte]")
    created_lt: Moment | None = Field(default=None, alias="created[lt]")
    created_lte: Moment | None = Field(default=None, alias="created[lte]")

    @property
    def since(self) -> datetime | None:
        """The first moment that is asked for."""
        bounds = [
            second for second in (self.created_gte, _after(self.created_gt)) if second is not None
        ]
        return datetime.fromtimestamp(max(bounds), UTC) if bounds else None

    @property
    def until(self) -> datetime | None:
        """The first moment that is no longer asked for."""
        bounds = [
            second for second in (_after(self.created_lte), self.created_lt) if second is not None
        ]
        return datetime.fromtimestamp(min(bounds), UTC) if bounds else None


def _after(second: int | None) -> int | None:
    """A Unix time names a whole second: what is after it begins with the next."""
    return None if second is None else second + 1


class Retrieve(Request):
    """The query of a request for one object that has nothing to expand."""


class RetrieveCharge(Request):
    """The query of `GET /charges/{id}`."""

    expand: Listed[Literal["balance_transaction"]] = Field(default_factory=list)


class RetrieveRefund(Request):
    """The query of `GET /refunds/{id}`."""

    expand: Listed[Literal["balance_transaction", "charge"]] = Field(default_factory=list)


class ListPayments(TimedPage):
    """The query of `GET /payments`."""

    status: PaymentStatus | None = None
    user_id: Id | None = None
    currency: Currency | None = None


class ListCharges(TimedPage):
    """The query of `GET /charges`."""

    status: ChargeStatus | None = None
    customer: Id | None = None
    currency: Currency | None = None
    expand: Listed[Literal["data.balance_transaction"]] = Field(default_factory=list)


class ListRefunds(TimedPage):
    """The query of `GET /refunds`."""

    status: ChargeStatus | None = None
    charge: Id | None = None
    payment_id: Id | None = None
    expand: Listed[Literal["data.balance_transaction", "data.charge"]] = Field(default_factory=list)


class ListEvents(TimedPage):
    """The query of `GET /events`."""

    type: EventType | None = None
    types: Annotated[Listed[EventType], Field(min_length=1, max_length=20)] | None = None


class ListBalanceTransactions(TimedPage):
    """The query of `GET /balance_transactions`."""

    source: Id | None = None
    currency: Currency | None = None
    type: Literal["charge", "refund"] | None = None


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
    BeforeValidator(_listed),
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

    overlap: Annotated[int, Field(ge=0, le=604_800), BeforeValidator(_is_whole)] = 86_400


class ListDeliveries(Page):
    """The query of `GET /webhook_endpoints/{id}/deliveries`."""

    status: Literal["dead", "retrying", "held"] | None = None


class Redeliver(Request):
    """`POST /deliveries/{id}/redeliver`: it has no parameters."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})


def metadata_text(metadata: dict[str, str]) -> str:
    """The JSON text of a metadata object, keys in order."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
