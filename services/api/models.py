"""What clients may send. These models validate; nothing unknown passes."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from services.api.strict_json import JsonNumber
from shared.event_types import EVENT_TYPES
from shared.money import MAX_MINOR, decimals_of
from shared.states import PaymentStatus


def is_text(value: Any) -> Any:
    """A string, and not a number."""
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


def is_whole(value: Any) -> int:
    """A whole number."""
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


def listed(value: Any) -> Any:
    """A form's `a[0]=x&a[1]=y` or `a[]=x`: places, not names."""
    if isinstance(value, dict) and all(n.isascii() and n.isdecimal() for n in value):
        return [found for _, found in sorted(value.items(), key=lambda item: int(item[0]))]
    return value


def _is_event_type(value: str) -> str:
    if value not in EVENT_TYPES:
        raise ValueError(f"must be one of {', '.join(EVENT_TYPES)}")
    return value


# The constraint stands next to the type, so that its message speaks of characters.
T = TypeVar("T")
Listed = Annotated[list[T], BeforeValidator(listed)]
Text = Annotated[str, BeforeValidator(is_text)]
Id = Annotated[str, Field(min_length=1, max_length=255), BeforeValidator(is_text)]
Description = Annotated[str, Field(max_length=1000), BeforeValidator(is_text)]
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
    BeforeValidator(is_text),
    WithJsonSchema({"type": "string", "enum": list(EVENT_TYPES)}),
]
Flag = Annotated[bool, BeforeValidator(_is_flag)]
Moment = Annotated[int, Field(ge=0, le=4_102_444_800), BeforeValidator(is_whole)]
Sequence = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(is_whole)]
Limit = Annotated[int, Field(ge=1, le=100), BeforeValidator(is_whole)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=40), BeforeValidator(is_text)]
MetadataValue = Annotated[str, Field(max_length=500), BeforeValidator(is_text)]
METADATA_KEYS = 50
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=METADATA_KEYS)]


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


class StreamEvents(Request):
    """The query of `GET /events/stream`: events behind the one numbered `after`; from now on, when
    neither it nor a Last-Event-ID says where to begin."""

    types: Annotated[Listed[EventType], Field(min_length=1, max_length=20)] | None = None
    after: Sequence | None = None


class ListBalanceTransactions(TimedPage):
    """The query of `GET /balance_transactions`."""

    source: Id | None = None
    currency: Currency | None = None
    type: Literal["charge", "refund"] | None = None


def metadata_text(metadata: dict[str, str]) -> str:
    """The JSON text of a metadata object, keys in order."""
    if not metadata:
        return "{}"
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
