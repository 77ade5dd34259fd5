"""JSON as it is stored, sent and answered: compact, and in UTF-8 rather than escaped to ASCII."""

from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder()


def to_json(value: Any) -> str:
    """The JSON text of dicts, lists, texts, integers, booleans and None, and enums of texts."""
    return _ENCODER.encode(value).decode()
