"""What clients may send. These models validate; nothing unknown passes."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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


# The constraint stands next to the type, so that its message speaks of characters.
Text = Annotated[str, BeforeValidator(_is_text)]
Id = Annotated[str, Field(min_length=1, max_length=255), BeforeValidator(_is_text)]
Description = Annotated[str, Field(max_length=1000), BeforeValidator(_is_text)]
Currency = Annotated[Text, AfterValidator(_is_currency)]
EventType = Annotated[str, AfterValidator(_is_event_type), BeforeValidator(_is_text)]
Moment = Annotated[int, Field(ge=0, le=4_102_444_800), BeforeValidator(_is_whole)]
Limit = Annotated[int, Field(ge=1, le=100), BeforeValidator(_is_whole)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=40), BeforeValidator(_is_text)]
MetadataValue = Annotated[str, Field(max_length=500), BeforeValidator(_is_text)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=50)]
Url = Annotated[
    str, Field(max_length=2048), AfterValidator(_is_http_url), BeforeValidator(_is_text)
]


class Request(BaseModel):
    """The base of everything that a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CreatePayment(Request):
    """`POST /payments`: amounts in major units."""

    user_id: Id
    amount: Annotated[str, BeforeValidator(_is_number_or_text)]
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

    amount: Annotated[int, Field(ge=1, le=MAX_MINOR), BeforeValidator(_is_whole)]
    currency: Currency
    customer: Id | None = None
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)


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


class ListEvents(TimedPage):
    """The query of `GET /events`."""

    type: EventType | None = None
    types: Annotated[list[EventType], Field(min_length=1, max_length=20)] | None = None


class ListBalanceTransactions(TimedPage):
    """The query of `GET /balance_transactions`."""

    source: Id | None = None
    currency: Currency | None = None


class CreateWebhookEndpoint(Request):
    """`POST /webhook_endpoints`."""

    url: Url
    enabled_events: Annotated[
        list[Annotated[Text, AfterValidator(_is_known_event)]], Field(min_length=1, max_length=100)
    ]
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)


def metadata_text(metadata: dict[str, str]) -> str:
    """The JSON text of a metadata object, keys in order."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
