"""What the broker carries: envelopes of references to rows that were committed together.

An envelope is JSON: `{"v": 1, "type": "payments", "items": [{"id", "account_id", …}]}`. The money
itself never travels: a consumer reads it from Postgres, so a message may come twice, late, or not
at all, without harm.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from shared.errors import Malformed
from shared.json_text import to_json

VERSION: Final = 1

PAYMENTS: Final = "payments"
REFUNDS: Final = "refunds"
EVENTS: Final = "events"
DELIVERIES: Final = "deliveries"


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A reference to one row. Equal and ordered by its key alone, so that two messages about one
    row are one item of a batch, and every batch locks in one order."""

    account_id: str
    id: str
    request_id: str | None = field(default=None, compare=False)
    by_hand: bool = field(default=False, compare=False)
    """Whether a person asked for it, and waits."""


_KEY: Final = attrgetter("account_id", "id")


def in_order(items: Iterable[Item]) -> list[Item]:
    """Each of `items` once, in the order in which every batch locks rows."""
    return sorted(set(items), key=_KEY)


def encode_item(item: Item) -> str:
    """The JSON text of one reference."""
    fields: dict[str, str | bool] = {"id": item.id, "account_id": item.account_id}
    if item.request_id is not None:
        fields["request_id"] = item.request_id
    if item.by_hand:
        fields["by_hand"] = True
    return to_json(fields)


def encode_event(account_id: str, id_: str, type_: str) -> str:
    """The JSON text of a reference to an event. It says the event's type, for those who bind queues
    of their own: an envelope may hold events of other types than the one they asked for."""
    return to_json({"id": id_, "account_id": account_id, "type": type_})


def opening(kind: str) -> str:
    """The text before the items of an envelope of `kind`. A statement that decides which rows are
    told of joins their items with commas and closes with `CLOSING`."""
    return f'{{"v":{VERSION},"type":{to_json(kind)},"items":['


CLOSING: Final = "]}"


def encode(kind: str, items: Sequence[Item]) -> str:
    """The JSON text of an envelope of `kind` (one of the constants above)."""
    return opening(kind) + ",".join(map(encode_item, items)) + CLOSING


def decode(body: bytes, expected: str) -> list[Item]:
    """The items of an envelope that must be of the kind `expected`. Raises Malformed, saying why.

    Unknown fields are ignored, so that a newer producer can add some during a rolling deploy.
    """
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(envelope, dict):
        raise Malformed("the body is not a JSON object")
    if envelope.get("v") != VERSION:
        raise Malformed(f"version {envelope.get('v')!r} is not {VERSION}")
    if envelope.get("type") != expected:
        raise Malformed(f"type {envelope.get('type')!r} does not belong here: {expected!r} does")
    items = envelope.get("items")
    if not isinstance(items, list) or not items:
        raise Malformed("items is not a list with at least one reference")
    return [_item(position, raw) for position, raw in enumerate(items)]


def _item(position: int, raw: Any) -> Item:
    if not isinstance(raw, dict):
        raise Malformed(f"items[{position}] is not an object")
    for name in ("id", "account_id"):
        if not _is_text(raw.get(name)):
            raise Malformed(f"items[{position}].{name} is not a text that Postgres can hold")
    request_id = raw.get("request_id")
    if request_id is not None and not _is_text(request_id):
        raise Malformed(f"items[{position}].request_id is not a text that Postgres can hold")
    return Item(
        account_id=raw["account_id"],
        id=raw["id"],
        request_id=request_id,
        by_hand=raw.get("by_hand") is True,
    )


def _is_text(value: Any) -> bool:
    """Whether `value` is a non-empty string without NUL and without lone surrogates."""
    return (
        isinstance(value, str)
        and bool(value)
        and "\0" not in value
        and (value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value))
    )
