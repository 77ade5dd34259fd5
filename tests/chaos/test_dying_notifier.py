"""The notifier dies at each point of a delivery: nothing is lost, and attempts are told apart."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from shared.db import Database
from tests.chaos.dying_notifier import POINTS
from tests.invariants import assert_deliveries
from tests.receiver import Heard, Receiver
from tests.system import System, Urls, eventually


@pytest.mark.parametrize("point", POINTS)
async def test_killed_there_it_loses_no_event_and_no_attempt(
    point: str, urls: Urls, empty: Database, receiver: Receiver, tmp_path: Path
) -> None:
    mark = tmp_path / "died"
    dying = [sys.executable, "-m", "tests.chaos.dying_notifier", point, str(mark)]
    system = System(
        urls,
        tmp_path,
        commands={"notifier": dying},
        FLORIN_WEBHOOK_TIMEOUT="1",
        FLORIN_LOST_AFTER="2",
    )
    refused: list[str] = []
    in_hand: set[str] = set()
    overlapped: list[str] = []

    async def refuse_once(heard: Heard) -> web.Response:
        """So that recording, its messages and the endpoint's health are all in play."""
        id_ = heard.headers["webhook-id"]
        if id_ in in_hand:
            overlapped.append(id_)
        in_hand.add(id_)
        await asyncio.sleep(0.05)  # so that two at once would meet
        in_hand.discard(id_)
        if id_ in refused:
            return web.Response()
        refused.append(id_)
        return web.Response(status=500)

    receiver.answer = refuse_once
    try:
        await system.start()
        async with aiohttp.ClientSession(system.url) as http:
            body = {"url": receiver.url, "enabled_events": ["payment.completed"]}
            async with http.post("/v1/webhook_endpoints", json=body) as response:
                assert response.status == 200
            for _ in range(3):
                async with http.post(
                    "/v1/charges", json={"amount": 100, "currency": "usd"}
                ) as response:
                    assert response.status == 200

        async def all_delivered() -> bool:
            rows = await empty.fetch("SELECT status FROM deliveries")
            return [row["status"] for row in rows] == ["delivered"] * 3

        await eventually(all_delivered, 40)
    finally:
        await system.stop()
    assert overlapped == []
    assert mark.read_text() == point, "it never came to that point"
    attempts = await empty.fetch("SELECT * FROM delivery_attempts ORDER BY delivery_id, number")
    by_delivery: dict[str, list[Any]] = {}
    for attempt in attempts:
        by_delivery.setdefault(attempt["delivery_id"], []).append(attempt)
    for made in by_delivery.values():
        assert [a["number"] for a in made] == list(range(1, len(made) + 1)), "no gap"
        ends = [a["started_at"].timestamp() + (a["duration_ms"] or 0) / 1000 for a in made]
        starts = [a["started_at"].timestamp() for a in made]
        assert all(s >= e - 0.002 for e, s in zip(ends, starts[1:], strict=False)), "no overlap"
        assert made[-1]["status_code"] == 200
    events = await empty.fetch("SELECT id FROM events WHERE type = 'payment.completed'")
    assert {heard.headers["webhook-id"] for heard in receiver.heard} == {e["id"] for e in events}
    await assert_deliveries(empty)
