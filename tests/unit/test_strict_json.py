"""Bodies are taken literally, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.strict_json import InvalidJson, JsonNumber, parse

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_json_is_read_as_the_standard_parser_reads_it(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_stays_the_text_that_the_client_wrote(number: object) -> None:
    text = f"{number:f}"
    assert parse(f'{{"amount": {text}}}'.encode())["amount"] == JsonNumber(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_are_refused(body: bytes) -> None:
    try:
        parse(body)
    except InvalidJson:
        return


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "not a JSON number"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        (b'{"a": "x\\u0000y"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ["\\udc00"]}', "surrogate"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1,}', "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "nested"),
        (b"[" * 40 + b"]" * 40, "nested"),
    ],
)
def test_what_cannot_be_kept_literally_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidJson, match=reason):
        parse(body)


def test_a_number_of_any_length_is_read_without_being_computed() -> None:
    digits = "9" * 100_000
    assert parse(digits.encode()) == digits
