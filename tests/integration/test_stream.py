"""The stream of events: it says that it is there, and there are not too many."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cli.keys import Role, create_key
from services.api import auth
from services.api.routes import events as streaming
from shared.db import Database
from tests.integration.test_query_plans import Explaining, serving
from tests.system import Urls
from tests.telling import happen


@pytest.fixture
async def http(empty: Database, urls: Urls) -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(Explaining(empty, generic=False), urls) as http:
        yield http


async def test_a_stream_with_nothing_to_tell_says_that_it_is_there(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PING_AFTER", 0.1)
    async with http.get("/v1/events/stream") as response:
        await response.content.readuntil(b"\n\n")
        assert await response.content.readuntil(b"\n\n") == b": still here\nid: 0\n\n"


async def test_a_key_that_is_revoked_reads_no_further(
    http: aiohttp.ClientSession, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.0)
    _, key = await create_key(empty, account_id="", new_account="Other", role=Role.SECRET)
    headers = {"Authorization": f"Bearer {key}"}
    async with http.get("/v1/events/stream", headers=headers) as response:
        await response.content.readuntil(b"\n\n")
        await empty.execute("UPDATE api_keys SET revoked_at = now() WHERE role = 'secret'")
        async with asyncio.timeout(5):
            assert await response.content.read() == b""


async def test_one_stream_too_many_is_asked_to_come_later(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MOST_STREAMS", 1)
    async with http.get("/v1/events/stream") as first:
        await first.content.readuntil(b"\n\n")
        async with http.get("/v1/events/stream") as second:
            assert second.status == 503
            assert second.headers["Retry-After"] == "30"


async def test_types_choose_and_the_numbers_go_on(
    http: aiohttp.ClientSession, empty: Database
) -> None:
    async with http.get(
        "/v1/events/stream", params={"types[]": "payment.failed", "after": "0"}
    ) as response:
        await response.content.readuntil(b"\n\n")
        await happen(empty)
        await happen(empty, "payment.failed")
        told = (await response.content.readuntil(b"\n\n")).decode()
    assert told.startswith("event: payment.failed\nid: 2\ndata: {")
