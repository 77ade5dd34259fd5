"""New work is refused when it would be answered late, and only then."""

import asyncio
import time
from typing import cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.api.auth import Authenticator
from services.api.congestion import INTERVAL, Congestion
from services.api.gate import make_dresser, make_gate
from services.api.rate_limit import RateLimiter
from shared.db import Database


def test_nothing_is_refused_before_the_first_look_and_while_looks_are_on_time() -> None:
    congestion = Congestion(0.25)
    assert not congestion.refuses(1e9)
    for step in range(10):
        now = step * INTERVAL
        congestion.looked(now)
        assert not congestion.refuses(now)
        assert not congestion.refuses(now + INTERVAL + 0.24)


def test_a_look_that_is_overdue_refuses_already() -> None:
    congestion = Congestion(0.25)
    congestion.looked(0.0)
    assert congestion.refuses(INTERVAL + 0.26)


def test_after_a_late_look_it_refuses_until_one_is_on_time() -> None:
    congestion = Congestion(0.25)
    congestion.looked(0.0)
    congestion.looked(1.0)
    assert congestion.refuses(1.0)
    congestion.looked(1.0 + INTERVAL)
    assert not congestion.refuses(1.0 + INTERVAL)


async def test_a_late_process_answers_503_with_retry_after_and_its_probes_as_ever() -> None:
    congestion, limiter = Congestion(0.05), RateLimiter(1e6, 10**6)

    async def fine(_: web.Request) -> web.Response:
        return web.Response()

    authenticator = Authenticator(cast(Database, None), local=True)
    app = web.Application(
        middlewares=[make_gate(authenticator, limiter, congestion, probes={"/ready"}, pages=())]
    )
    app.on_response_prepare.append(make_dresser(limiter))
    app.router.add_get("/payments", fine)
    app.router.add_get("/ready", fine)
    async with TestClient(TestServer(app)) as client:
        looking = asyncio.create_task(congestion.run())
        await asyncio.sleep(0)
        assert (await client.get("/payments")).status == 200
        under_way = asyncio.create_task(client.get("/payments"))
        time.sleep(INTERVAL + 0.2)
        assert congestion.refuses(time.monotonic())
        refused = await under_way
        assert refused.status == 503
        assert refused.headers["Retry-After"] == "1"
        time.sleep(INTERVAL + 0.2)
        assert (await client.get("/ready")).status == 200
        async with asyncio.timeout(5):
            while (await client.get("/payments")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(INTERVAL)
        congestion.stop()
        await looking
