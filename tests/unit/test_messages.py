"""An envelope is read as it was written; anything else is malformed, with a reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Malformed
from shared.messages import CLOSING, PAYMENTS, Item, decode, encode, encode_item, opening

texts = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)
items = st.builds(Item, texts, texts, st.none() | texts)


@given(st.lists(items, min_size=1, max_size=5))
def test_items_survive_the_round_trip(sent: list[Item]) -> None:
    received = decode(encode(PAYMENTS, sent).encode(), PAYMENTS)
    assert received == sent
    assert [item.request_id for item in received] == [item.request_id for item in sent]


def test_two_messages_about_one_row_are_one_item() -> None:
    assert sorted({Item("a", "b", "req_1"), Item("a", "b"), Item("a", "a")}) == [
        Item("a", "a"),
        Item("a", "b"),
    ]


@given(st.lists(items, min_size=1, max_size=5))
def test_a_statement_that_joins_items_makes_the_same_envelope(sent: list[Item]) -> None:
    joined = opening(PAYMENTS) + ",".join(encode_item(item) for item in sent) + CLOSING
    assert joined == encode(PAYMENTS, sent)


@given(st.binary(max_size=50))
def test_any_bytes_are_an_envelope_or_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode(body, PAYMENTS)


GOOD: dict[str, Any] = {"v": 1, "type": "payments", "items": [{"id": "a", "account_id": "b"}]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 2}, "version 2 is not 1"),
        ({"type": "events"}, "'events' does not belong here"),
        ({"items": []}, "at least one"),
        ({"items": "a"}, "at least one"),
        ({"items": ["a"]}, r"items\[0\] is not an object"),
        ({"items": [{"id": "a"}]}, r"items\[0\].account_id"),
        ({"items": [{"id": 1, "account_id": "b"}]}, r"items\[0\].id"),
        ({"items": [{"id": "\0", "account_id": "b"}]}, r"items\[0\].id"),
        ({"items": [{"id": "a", "account_id": "b", "request_id": 5}]}, "request_id"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode(json.dumps(GOOD | change).encode(), PAYMENTS)


def test_a_newer_producer_may_add_fields() -> None:
    newer = {**GOOD, "trace": "x", "items": [{**GOOD["items"][0], "colour": "red"}]}
    assert decode(json.dumps(newer).encode(), PAYMENTS) == [Item("b", "a")]
