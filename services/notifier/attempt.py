"""An attempt that one process alone may make: what it needs, and how long it may."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct


class Attempt(Struct, frozen=True):
    """An attempt that this process alone may make, numbered, and all that it needs."""

    account_id: str
    delivery_id: str
    number: int
    lease_until: datetime
    """When others may take it over; by this value it is known that nobody has."""
    event_id: str
    body: str
    endpoint_id: str
    url: str
    secrets: Sequence[str]
    """Sealed; the newest first."""
    custom_headers: str | None
    """Sealed JSON of names and values."""
    failing_since: datetime | None
    """The endpoint's first failure since its last success."""
    abandoned: str | None = None
    """Why it is not made, if it is not."""


class Claim(Struct, frozen=True):
    """An attempt in hand. Its lease began at some time after `asked_at`, in monotonic seconds."""

    attempt: Attempt
    asked_at: float
