"""What the gate does in which order, with a clock of the test's own."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from services.api import gate
from services.api.auth import Authenticator, Caller
from services.api.congestion import Congestion
from services.api.rate_limit import RateLimiter


class Keys:
    """Finds the caller when the test lets it."""

    def __init__(self) -> None:
        self.found = asyncio.Event()

    def check_origin(self, _: Mapping[str, str], *, any_name: bool) -> None: ...

    async def authenticate(self, _: Mapping[str, str], __: float) -> Caller:
        await self.found.wait()
        return Caller("acct_1", "key_1", "secret")


async def test_a_key_that_was_looked_for_long_costs_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(gate, "time", SimpleNamespace(monotonic=lambda: now))
    slow, quick = Keys(), Keys()
    quick.found.set()
    limiter = RateLimiter(rate=1, burst=1)

    def ask(keys: Keys) -> asyncio.Future[web.StreamResponse]:
        middleware = gate.make_gate(
            cast(Authenticator, keys), limiter, Congestion(60), probes=(), pages=()
        )

        async def handler(_: web.Request) -> web.StreamResponse:
            return web.Response()

        request = make_mocked_request("GET", "/v1/payments")
        return asyncio.ensure_future(middleware(request, handler))

    first = ask(slow)
    await asyncio.sleep(0)
    now = 100.0
    assert (await ask(quick)).status == 200
    now = 101.5
    slow.found.set()
    assert (await first).status == 200
    assert (await ask(quick)).status == 429, "and the token was spent"
