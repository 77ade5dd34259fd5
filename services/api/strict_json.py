"""JSON as RFC 8259 and I-JSON (RFC 7493) mean it, and exactly.

The standard parser is lenient where money is not: it rounds numbers, takes NaN, lets the last of
two equal keys win and passes on what Postgres cannot store. Numbers stay the text that the client
wrote, so that a decision about exactness is made where the currency is known.
"""

import json
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 32


class InvalidJson(ValueError):  # noqa: N818 - an answer to a person
    """The body is not JSON that can be taken literally; the message says where and why."""


class JsonNumber(str):
    """The text of a JSON number, such as `100.50`."""

    __slots__ = ()


def parse(body: bytes) -> Any:
    """The value of a JSON text, with numbers as JsonNumber. Raises InvalidJson."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"The body is not UTF-8: byte {error.start} is wrong.") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJson(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise InvalidJson(_TOO_DEEP) from None
    check_texts(value)
    return value


_TOO_DEEP: Final = f"The body is nested more than {MAX_DEPTH} levels deep."


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not a JSON number.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidJson(f"The name {twice!r} stands twice in one object.")
    return result


_DECODER: Final = json.JSONDecoder(
    parse_float=JsonNumber,
    parse_int=JsonNumber,
    parse_constant=_refuse_constant,
    object_pairs_hook=_object,
)


def check_texts(value: Any, depth: int = 0) -> None:
    """Raise InvalidJson for a text anywhere in `value` that no Postgres column can hold."""
    if depth > MAX_DEPTH:
        raise InvalidJson(_TOO_DEEP)
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_text(key)
            check_texts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_texts(inner, depth + 1)


def check_text(text: str) -> None:
    """Raise InvalidJson for text that no Postgres column can hold."""
    if "\0" in text:
        raise InvalidJson("A text contains the NUL character (\\u0000), which cannot be stored.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidJson(
                "A text contains half of a surrogate pair (\\ud800-\\udfff), which is no character."
            ) from None
