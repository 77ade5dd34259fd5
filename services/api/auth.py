"""Who is asking: a key's account, or under FLORIN_AUTH=local the default account.

Under `local` the server stands on loopback, where a web page in the same browser could reach it:
a request whose Host is not a loopback name (DNS rebinding), that comes from another origin
(cross-site forms and scripts) or through a proxy is refused.
"""

import asyncio
import base64
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from services.api.codes import Code
from services.api.errors import Problem
from services.api.store.keys import find_keys
from shared.api_keys import matches, prefix_of
from shared.db import Database
from shared.schema import DEFAULT_ACCOUNT

PROXIED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
"""Headers by which a proxy says that it is one."""
CACHE_SECONDS: Final = 10.0
"""How long a key that was found is believed: the longest that a revoked key goes on working."""
CACHE_SIZE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The account that a request acts for. `key_id` is None without credentials."""

    account_id: str
    key_id: str | None
    role: str


ANONYMOUS: Final = Caller(DEFAULT_ACCOUNT, None, "secret")


class Authenticator:
    """Finds the caller of a request."""

    def __init__(self, database: Database, *, local: bool) -> None:
        self._database = database
        self._local = local
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._looking: dict[bytes, asyncio.Future[Caller]] = {}

    def check_origin(self, headers: Mapping[str, str], *, any_name: bool) -> None:
        """Under `local`, raise a Problem (403) for a request that a foreign page may have sent;
        with `any_name`, the server may have been asked for under another name."""
        if not self._local:
            return
        host = headers.get("Host", "")
        if not any_name and not _is_loopback_name(host):
            raise _forbidden(
                Code.HOST_NOT_LOCAL,
                f"This server answers to loopback names only, and was asked for as {host[:80]!r}."
                " Use http://127.0.0.1 or localhost, or set FLORIN_AUTH=required.",
            )
        if not any_name and (proxy := next((n for n in PROXIED if n in headers), None)):
            raise _forbidden(
                Code.PROXY_NOT_LOCAL,
                f"The request came through a proxy ({proxy}), and others may stand behind it: set"
                " FLORIN_AUTH=required.",
            )
        origin = headers.get("Origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise _forbidden(
                Code.ORIGIN_NOT_LOCAL,
                f"Pages of {origin[:80]!r} may not use this server without a key."
                " Set FLORIN_AUTH=required and send one.",
            )

    async def authenticate(self, headers: Mapping[str, str], now: float) -> Caller:
        """The caller at `now` (monotonic seconds). Raises a Problem (401)."""
        presented = headers.get("Authorization")
        if presented is None:
            if self._local:
                return ANONYMOUS
            raise _unauthorized("No API key was sent. Send `Authorization: Bearer sk_…`.")
        key = _key_of(presented)
        if key is None or not key.isascii():
            raise _unauthorized(
                "The Authorization header is neither `Bearer sk_…` nor Basic with the key as user."
            )
        digest = hashlib.sha256(key.encode()).digest()
        known = self._known.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        # One look for all who wait: a key that thousands use is forgotten for all of them at once.
        look_up = self._looking.get(digest)
        if look_up is None:
            look_up = self._looking[digest] = asyncio.ensure_future(self._look_up(key))
            look_up.add_done_callback(lambda _: self._looking.pop(digest, None))
        caller = await asyncio.shield(look_up)
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        self._known[digest] = (caller, now + CACHE_SECONDS)
        return caller

    async def _look_up(self, key: str) -> Caller:
        for row in await find_keys(self._database, prefix_of(key).replace("\0", "")):
            if matches(key, row["key_hash"]):
                return Caller(row["account_id"], row["id"], row["role"])
        raise _unauthorized("The API key is wrong or was revoked.")


def _key_of(presented: str) -> str | None:
    scheme, _, value = presented.partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer":
            return value or None
        case "basic":
            try:
                user, _, _ = base64.b64decode(value, validate=True).decode().partition(":")
            except ValueError:  # not base64, not UTF-8, not ASCII
                return None
            return user or None
    return None


@lru_cache(maxsize=100)
def _is_loopback_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _forbidden(code: Code, message: str) -> Problem:
    return Problem(403, "permission_error", code, message)


def _unauthorized(message: str) -> Problem:
    return Problem(
        401,
        "authentication_error",
        Code.API_KEY_INVALID,
        message,
        headers={"WWW-Authenticate": 'Bearer realm="florin"'},
    )
