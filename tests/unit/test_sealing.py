"""Secrets at rest are sealed; whoever has the database alone has none of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from services.api.config import ApiSettings
from shared.config import load
from shared.errors import Misconfigured
from shared.sealing import Seal, make_sealing_key

OLD, NEW = SecretStr(make_sealing_key()), SecretStr(make_sealing_key())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_is_opened_by_the_key_and_tells_nothing(text: str) -> None:
    sealed = Seal([OLD]).close(text)
    assert Seal([OLD]).open(sealed) == text
    assert len(text) < 4 or text not in sealed


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    seal = Seal([OLD])
    assert seal.close("whsec_x") != seal.close("whsec_x")


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    before, after = Seal([OLD]), Seal([NEW, OLD])
    sealed = before.close("whsec_x")
    assert after.open(sealed) == "whsec_x"
    assert Seal([NEW]).open(after.close("whsec_y")) == "whsec_y"


def test_a_secret_of_another_key_is_an_error_that_says_what_to_do() -> None:
    sealed = Seal([OLD]).close("whsec_x")
    for damaged in (sealed, sealed[:-5] + "AAAA="):
        with pytest.raises(Misconfigured, match="FLORIN_SEALING_KEYS") as refused:
            Seal([NEW]).open(damaged)
        assert "whsec_x" not in str(refused.value)


def test_what_was_stored_before_there_were_seals_is_read_as_it_is() -> None:
    assert Seal([NEW]).open("whsec_plain") == "whsec_plain"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "FLORIN_SEALING_KEYS"),
        ("", "make one with"),
        ("short", "key 1 is not one"),
        (f"{OLD.get_secret_value()},short", "key 2 is not one"),
    ],
)
def test_a_missing_or_wrong_key_is_refused_at_start_without_showing_it(
    value: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLORIN_SEALING_KEYS", raising=False)
    if value is not None:
        monkeypatch.setenv("FLORIN_SEALING_KEYS", value)
    with pytest.raises(Misconfigured, match=says) as refused:
        load(ApiSettings)
    assert OLD.get_secret_value() not in str(refused.value)
