"""Forms with nested brackets are read as Stripe's SDKs write them."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.form import InvalidForm, parse

names = st.text(
    st.characters(exclude_characters="[]\0", exclude_categories=["Cs", "Nd"]), min_size=1
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    texts,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(names, inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def written(name: str, value: object) -> list[tuple[str, str]]:
    """A value as the SDKs flatten it."""
    if isinstance(value, str):
        return [(name, value)]
    steps = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    return [pair for step, inner in steps for pair in written(f"{name}[{step}]", inner)]


def placed(value: object) -> object:
    """A form knows no lists: what it says of one is which value stands where."""
    if isinstance(value, list):
        return {str(place): placed(inner) for place, inner in enumerate(value)}
    if isinstance(value, dict):
        return {name: placed(inner) for name, inner in value.items()}
    return value


@given(st.dictionaries(names, values, max_size=4))
def test_what_the_sdks_write_is_read_back(fields: dict[str, object]) -> None:
    pairs = [pair for name, value in fields.items() for pair in written(name, value)]
    assert parse(urlencode(pairs).encode()) == placed(fields)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_form_or_are_refused(body: bytes) -> None:
    try:
        parse(body)
    except InvalidForm:
        return


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b"a=1&b=x+y%26", {"a": "1", "b": "x y&"}),
        (b"events[]=a&events[]=b", {"events": {"0": "a", "1": "b"}}),
        (b"events[10]=b&events[9]=a", {"events": {"10": "b", "9": "a"}}),
        (b"metadata%5Border%5D=7", {"metadata": {"order": "7"}}),
        (b"metadata[0]=zero", {"metadata": {"0": "zero"}}),
        (b"a=", {"a": ""}),
    ],
)
def test_forms_as_clients_write_them(body: bytes, value: object) -> None:
    assert parse(body) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"a=1&a=2", "'a' stands twice"),
        (b"a=1&a[b]=2", "a value and an object"),
        (b"a[b]=1&a=2", "stands twice"),
        (b"a[b=1", "not named like"),
        (b"[a]=1", "not named like"),
        (b"a" + b"[b]" * 20 + b"=1", "nested too deep"),
        (b"a=%ff", "not UTF-8"),
        (b"\xff=1", "not UTF-8"),
        (b"nothing", "not a form"),
        (b"a=1&" * 1001, "at most 1000 fields"),
    ],
)
def test_what_has_no_one_meaning_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidForm, match=reason):
        parse(body)
