"""A URL leads where it says or nowhere, and a request says what it was given and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.request import NotRequestable, destination, post


@pytest.mark.parametrize(
    ("url", "start"),
    [
        ("https://Example.COM", "POST / HTTP/1.1\r\nHost: example.com"),
        ("http://h:8080/a b?c=d#e", "POST /a%20b?c=d HTTP/1.1\r\nHost: h:8080"),
        ("https://[::1]:444?x", "POST /?x HTTP/1.1\r\nHost: [::1]:444"),
        (
            "https://bücher.example:443/ü",
            "POST /%C3%BC HTTP/1.1\r\nHost: xn--bcher-kva.example",
        ),
    ],
)
def test_a_url_says_what_is_asked_for_and_of_whom(url: str, start: str) -> None:
    assert destination(url).start == start


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/x",
        "ftp://h/",
        "http:///x",
        "http://h:x/",
        "http://127.1/",
        "http://[::1/",
        "http://[}1]@,{@",
        "http://a\u3000b/",
    ],
)
def test_a_url_that_leads_nowhere_is_not_requested_nor_shown(url: str) -> None:
    with pytest.raises(NotRequestable, match=r"^the URL is not one that can be requested$"):
        destination(url)


def test_a_url_with_a_password_is_not_requested_nor_shown() -> None:
    with pytest.raises(NotRequestable) as refused:
        destination("https://user:hunter2@example.com/")
    assert "hunter2" not in str(refused.value)


CONTROLS = st.characters(max_codepoint=0x7F, categories=["Cc"]).filter(lambda c: c != "\t")


@given(st.text(), CONTROLS, st.text(), st.booleans())
def test_no_header_begins_another(before: str, control: str, after: str, in_name: bool) -> None:
    evil = before + control + after
    headers = {evil: "x"} if in_name else {"X": evil}
    with pytest.raises(ValueError, match="control character"):
        post(destination("https://example.com"), headers, b"")


@given(
    st.dictionaries(
        st.text("ab-", min_size=1), st.text(st.characters(exclude_categories=["Cc", "Cs"]))
    )
)
def test_a_request_holds_its_headers_and_its_body(headers: dict[str, str]) -> None:
    head, _, body = post(destination("https://h/p"), headers, b"\r\n{}").partition(b"\r\n\r\n")
    assert body == b"\r\n{}"
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /p HTTP/1.1"
    said = [f"{name}: {value}" for name, value in headers.items()]
    assert lines == ["Host: h", *said, "Content-Length: 4"]
