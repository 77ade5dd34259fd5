"""An event: the exact bytes that are stored, signed and sent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from shared.ids import new_id
from shared.json_text import to_json
from shared.payment import iso


class Event(Struct, frozen=True):
    """What happened to one object. `body` is JSON text, and never changes again."""

    account_id: str
    id: str
    type: str
    object_id: str
    body: str


def make_event(
    account_id: str,
    type_: str,
    object_id: str,
    subject: Mapping[str, Any],
    now: datetime,
    *,
    id_: str | None = None,
) -> Event:
    """An event about `subject`, an object as the API shows it, that happened at `now`.

    `object_id` is that of a payment or refund, of which each type of event happens once; other
    events are about nothing but themselves there, and have their own id.
    """
    id_ = id_ or new_id("evt")
    body = {
        "id": id_,
        "object": "event",
        "type": type_,
        "created": int(now.timestamp()),
        "timestamp": iso(now),
        "livemode": False,
        "data": {"object": subject},
    }
    return Event(account_id, id_, type_, object_id, to_json(body))
