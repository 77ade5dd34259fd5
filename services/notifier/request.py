"""A POST as bytes: where its URL leads, and a head that says what it was given and nothing else."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from yarl import URL

_NUMERIC: Final = re.compile(r"[\d.]+|.*:.*")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class NotRequestable(ValueError):  # noqa: N818 - it says what is wrong
    """A URL that leads nowhere by HTTP. Its text does not hold it: URLs carry secrets."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a URL leads."""

    host: str
    """A name as DNS knows it, or an address without brackets."""
    port: int
    is_tls: bool
    start: str
    """The request's first lines, which are the URL's: what is asked for, and of whom."""


@lru_cache(maxsize=4096)
def destination(url: str) -> Destination:
    """Where `url` leads. Raises NotRequestable."""
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
        if host and _NUMERIC.fullmatch(host):
            ipaddress.ip_address(host)  # not 127.1 and its like, which the system would complete
        elif host and not _NAME.fullmatch(host):
            host = None
    except (ValueError, IndexError):  # yarl raises either
        host = None
    if not host or port is None or parsed.scheme not in ("http", "https"):
        raise NotRequestable("the URL is not one that can be requested")
    if parsed.raw_user or parsed.raw_password:
        raise NotRequestable("the URL carries a user or password: requests are signed instead")
    return Destination(
        host=host,
        port=port,
        is_tls=parsed.scheme == "https",
        start=f"POST {parsed.raw_path_qs} HTTP/1.1\r\nHost: {parsed.host_port_subcomponent}",
    )


def post(to: Destination, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request with `headers` besides the URL's and the body's own.

    Raises ValueError where a header holds a control character, which could begin another.
    """
    lines = [f"{name}: {value}" for name, value in headers.items()]
    text = "".join(lines)
    if not text.isprintable() and _CONTROL.search(text):
        raise ValueError("a header holds a control character")
    head = "\r\n".join((to.start, *lines, f"Content-Length: {len(body)}", "", ""))
    return head.encode() + body
