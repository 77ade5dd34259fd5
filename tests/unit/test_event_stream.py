"""A stream of events is read as its standard says."""

from hypothesis import given
from hypothesis import strategies as st

from cli.event_stream import Decoder, Told


def told(*lines: str) -> list[Told]:
    decoder = Decoder()
    return [event for line in lines for event in decoder.feed(line)]


def test_an_event_ends_with_an_empty_line_and_keeps_the_last_id() -> None:
    assert told(
        "event: a\n", "id: 1\n", "data: {}\n", "\n", ": still here\n", "\n", "data: x\n", "\n"
    ) == [Told("1", "a", "{}"), Told("1", "message", "x")]


def test_a_cut_off_event_is_no_event() -> None:
    assert told("event: a\n", "id: 2\n", "data: {}\n") == []


LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


@given(st.lists(LINES, min_size=1))
def test_what_is_written_is_read(data: list[str]) -> None:
    assert told(*(f"data: {line}\n" for line in data), "\n") == [
        Told("", "message", "\n".join(data))
    ]
