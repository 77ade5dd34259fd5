"""An answer is the same in whatever pieces it comes, and what is none is never taken for one."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.wire import (
    KEPT_RESPONSE,
    MAX_HEAD,
    MAX_RESPONSE,
    Answer,
    Connection,
    Disconnected,
    NotHttp,
)


class Wire(asyncio.Transport):
    """What a connection writes to, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


async def hear(
    pieces: Iterable[bytes], *, then_ends: bool = False, unsent: int = 0
) -> tuple[Answer, bool]:
    """The answer that comes in `pieces`, and whether the connection may be used again."""
    wire = Wire()
    wire.unsent = unsent
    connection = Connection(lambda _: None)
    connection.connection_made(wire)
    exchange = asyncio.ensure_future(connection.exchange(b"POST"))
    await asyncio.sleep(0)
    assert wire.written == b"POST"
    for piece in pieces:
        if wire.aborted:
            break
        connection.data_received(piece)
    if then_ends or wire.aborted:
        connection.connection_lost(None)
    return await exchange, connection.is_open


def cut(whole: bytes, at: Iterable[int]) -> Sequence[bytes]:
    ends = sorted({min(place, len(whole)) for place in at} | {0, len(whole)})
    return [whole[start:end] for start, end in pairwise(ends)]


def chunked(body: bytes, at: Iterable[int]) -> bytes:
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in cut(body, at))
    return chunks + b"0\r\nRetry-After: 9\r\n\r\n"


PLACES = st.lists(st.integers(0, 700), max_size=30)
FRAMINGS = st.sampled_from(["length", "chunked", "end"])


@given(
    st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    st.binary(max_size=300),
    FRAMINGS,
    st.integers(0, 2),
    PLACES,
    PLACES,
)
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(
    run: Callable[..., Any],
    status: int,
    body: bytes,
    framing: str,
    informational: int,
    chunks: list[int],
    places: list[int],
) -> None:
    framed = {
        "length": b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
        "chunked": b"Transfer-Encoding: gzip, Chunked\r\n\r\n" + chunked(body, chunks),
        "end": b"\r\n" + body,
    }[framing]
    whole = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 7\r\nLink: x\r\n\r\n" * informational
    whole += b"HTTP/1.1 %d So\r\nX-Empty:\r\nretry-after: 5\r\nX: \r\n" % status + framed
    answer, again = run(hear(cut(whole, places), then_ends=framing == "end"))
    assert answer == Answer(status, "5", body)
    assert again == (framing != "end")


@given(st.sampled_from([204, 304]), PLACES)
def test_some_answers_have_no_body_whatever_they_say(
    run: Callable[..., Any], status: int, places: list[int]
) -> None:
    whole = b"HTTP/1.1 %d Nothing\r\nContent-Length: 5\r\n\r\n" % status
    assert run(hear(cut(whole, places))) == (Answer(status, None, b""), True)


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@given(st.binary(min_size=1).filter(lambda extra: extra.strip(b"\r\n")), PLACES)
def test_a_connection_with_more_on_it_than_the_answer_is_not_used_again(
    run: Callable[..., Any], extra: bytes, places: list[int]
) -> None:
    assert run(hear(cut(WHOLE + extra, places))) == (Answer(200, None, b"ok"), False)


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        WHOLE + WHOLE,
    ],
)
def test_a_connection_that_is_not_kept_is_not_used_again(
    run: Callable[..., Any], whole: bytes
) -> None:
    assert run(hear([whole])) == (Answer(200, None, b"ok"), False)


def test_an_answer_to_what_was_not_read_leaves_no_rest_for_the_next(
    run: Callable[..., Any],
) -> None:
    assert run(hear([WHOLE], unsent=1)) == (Answer(200, None, b"ok"), False)


def test_a_protocol_that_we_did_not_ask_for_ends_the_connection(run: Callable[..., Any]) -> None:
    switch = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nxyz"
    assert run(hear([switch])) == (Answer(101, None, b""), False)


@given(st.binary(min_size=1, max_size=100), PLACES)
def test_what_is_not_http_is_said_to_be_so(
    run: Callable[..., Any], noise: bytes, places: list[int]
) -> None:
    with pytest.raises(NotHttp):
        run(hear(cut(b"\x15" + noise, places)))


@given(st.integers(0, len(WHOLE) - 1), PLACES)
def test_an_answer_that_is_not_whole_is_none(
    run: Callable[..., Any], length: int, places: list[int]
) -> None:
    with pytest.raises(Disconnected) as broken:
        run(hear(cut(WHOLE[:length], places), then_ends=True))
    assert broken.value.heard == (length > 0)


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"x"])
def test_a_head_without_end_is_not_read_without_end(
    run: Callable[..., Any], endless: bytes
) -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            taken += 1000
            yield (endless * 1000)[:1000]

    with pytest.raises(NotHttp):
        run(hear(pieces()))
    assert taken <= MAX_HEAD + 2 * 1000


@pytest.mark.parametrize(
    "endless", [b"1;%s\r\nx\r\n" % (b"y" * 90), b"1;" + b"y" * 98, b"0\r\nX: " + b"y" * 95]
)
def test_what_is_taken_of_a_body_is_bounded_however_it_is_framed(
    run: Callable[..., Any], endless: bytes
) -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield endless
        following = endless if endless.endswith(b"\n") else b"y" * 100
        while True:
            taken += len(following)
            yield following

    answer, again = run(hear(pieces()))
    assert answer.status == 200
    assert len(answer.body) <= KEPT_RESPONSE
    assert taken <= MAX_HEAD + MAX_RESPONSE + 2 * 100
    assert not again


def test_what_comes_unasked_ends_the_connection() -> None:
    wire, connection = Wire(), Connection(lambda _: None)
    connection.connection_made(wire)
    connection.data_received(WHOLE)
    assert wire.aborted


def test_what_has_ended_carries_nothing(run: Callable[..., Any]) -> None:
    wire, connection = Wire(), Connection(lambda _: None)
    connection.connection_made(wire)
    connection.connection_lost(None)
    with pytest.raises(Disconnected):
        run(connection.exchange(b"POST"))
    assert wire.written == b""
