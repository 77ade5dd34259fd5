"""One key, one change: at once, in two processes, after a crash, on every route that changes."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from services.api.once import forget_old_answers
from shared.db import Database
from tests.system import System, Urls, eventually


@pytest.fixture(scope="module")
async def sessions(
    system: System, urls: Urls, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[aiohttp.ClientSession]]:
    """Clients of two API processes on one database."""
    other = System(urls, tmp_path_factory.mktemp("other"))
    await other.services["api"].start(30)
    async with (
        aiohttp.ClientSession(system.url) as first,
        aiohttp.ClientSession(other.url) as second,
    ):
        yield [first, second]
    await other.services["api"].stop()


@pytest.fixture(scope="module")
async def paid(sessions: list[aiohttp.ClientSession]) -> str:
    """A completed payment of 100.00."""
    async with sessions[0].post("/v1/charges", json=BODIES["/v1/charges"]) as response:
        id_: str = (await response.json())["id"]

    async def succeeded() -> bool:
        async with sessions[0].get(f"/v1/charges/{id_}") as response:
            return bool((await response.json())["status"] == "succeeded")

    await eventually(succeeded)
    return id_


BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/payments": {"user_id": "u", "amount": "100.00", "currency": "USD"},
    "/v1/charges": {"amount": 10_000, "currency": "usd"},
    "/v1/refunds": {"charge": "{paid}", "amount": 100},
    "/v1/webhook_endpoints": {"url": "http://127.0.0.1:1/", "enabled_events": ["payment.failed"]},
    "/v1/webhook_endpoints/{endpoint}": {"description": "changed"},
}
OTHER: dict[str, dict[str, Any]] = {
    "/api/v1/payments": {"amount": "100.01"},
    "/v1/charges": {"amount": 10_001},
    "/v1/refunds": {"amount": 101},
    "/v1/webhook_endpoints": {"enabled_events": ["*"]},
    "/v1/webhook_endpoints/{endpoint}": {"description": "changed again"},
}


@pytest.fixture(scope="module")
async def endpoint(sessions: list[aiohttp.ClientSession]) -> str:
    body = BODIES["/v1/webhook_endpoints"]
    async with sessions[0].post("/v1/webhook_endpoints", json=body) as response:
        id_: str = (await response.json())["id"]
        return id_


async def send(
    session: aiohttp.ClientSession, path: str, body: dict[str, Any], key: str
) -> tuple[int, str, str | None]:
    """Status, body and the header that says that it is a replay."""
    async with session.post(path, json=body, headers={"Idempotency-Key": key}) as response:
        replayed = response.headers.get("Idempotent-Replayed")
        return response.status, await response.text(), replayed


@pytest.mark.parametrize("path", BODIES)
async def test_thirty_at_once_in_two_processes_are_one_change_and_thirty_equal_answers(
    path: str, sessions: list[aiohttp.ClientSession], paid: str, endpoint: str
) -> None:
    body = json.loads(json.dumps(BODIES[path]).replace("{paid}", paid))
    at = path.replace("{endpoint}", endpoint)
    key = f"thirty {path}"
    answers = await asyncio.gather(*(send(sessions[n % 2], at, body, key) for n in range(30)))
    assert {status for status, _, _ in answers} <= {200, 202}
    assert len({text for _, text, _ in answers}) == 1
    assert sorted(str(replayed) for _, _, replayed in answers) == ["None"] + ["true"] * 29
    for session in sessions:
        status, text, _ = await send(session, at, body | OTHER[path], key)
        error = json.loads(text)["error"]
        assert (status, error["type"], error["code"]) == (
            400, "idempotency_error", "idempotency_key_reused",
        )  # fmt: skip
        assert (await send(session, at, body, key))[1:] == (answers[0][1], "true")


async def test_a_refused_request_saves_nothing(
    sessions: list[aiohttp.ClientSession], database: Database
) -> None:
    for path, body in BODIES.items():
        if "{endpoint}" in path:
            continue
        key = f"refused {path}"
        status, _, _ = await send(sessions[0], path, body | {"colour": "red"}, key)
        assert status == 400
    missing = "/v1/webhook_endpoints/we_none"
    assert (await send(sessions[0], missing, {}, "refused"))[0] == 404
    keys = "SELECT count(*) FROM request_answers WHERE key LIKE 'refused%'"
    assert await database.fetchval(keys) == 0
    async with sessions[0].post("/v1/webhook_endpoints", json={}) as response:
        assert response.status == 400


async def test_keys_of_two_routes_do_not_meet(
    sessions: list[aiohttp.ClientSession], paid: str
) -> None:
    for path, body in BODIES.items():
        if "{endpoint}" not in path:
            filled = json.loads(json.dumps(body).replace("{paid}", paid))
            status, _, replayed = await send(sessions[0], path, filled, "shared")
            assert (status in (200, 202), replayed) == (True, None)


class GivenBack(Exception):  # noqa: N818
    """Rolls a transaction back."""


async def test_an_answer_that_a_crash_cut_off_is_given_to_who_asks_again(
    system: System, sessions: list[aiohttp.ClientSession], database: Database
) -> None:
    # The commit is held up by somebody who has the key and gives it back: when the client can no
    # longer hear Postgres say that it is done, it is done.
    api = system.services["api"]
    body, key = BODIES["/v1/charges"], "cut off"

    async def waits_for_the_key() -> bool:
        waiting = """
            SELECT 1 FROM pg_stat_activity
             WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO payments%' LIMIT 1
            """
        return bool(await database.fetchval(waiting))

    with contextlib.suppress(GivenBack):
        async with database.transaction() as rival:
            await rival.execute(
                """
                INSERT INTO payments (account_id, id, amount, currency, idempotency_scope,
                                      idempotency_key, request_fingerprint)
                VALUES ('acct_default', 'pay_rival', 1, 'USD', 'charges', $1, '')
                """,
                key,
            )
            asking = asyncio.create_task(send(sessions[0], "/v1/charges", body, key))
            await eventually(waits_for_the_key)
            old = system.kill("api", signal.SIGSTOP)
            raise GivenBack
    committed = "SELECT id FROM payments WHERE idempotency_key = 'cut off'"

    async def is_committed() -> Any:
        return await database.fetchval(committed)

    try:
        id_ = await eventually(is_committed)
    finally:
        system.kill("api", signal.SIGKILL)
    with pytest.raises(aiohttp.ClientError):
        await asking
    await system.wait_for_restart("api", old)
    assert api.pid != old
    for session in sessions:
        status, text, replayed = await send(session, "/v1/charges", body, key)
        assert (status, json.loads(text)["id"], replayed) == (200, id_, "true")
    assert (
        await database.fetchval("SELECT count(*) FROM payments WHERE idempotency_key = $1", key)
        == 1
    )


async def test_answers_are_forgotten_after_their_time_and_payments_are_not(
    sessions: list[aiohttp.ClientSession], database: Database
) -> None:
    path = "/v1/webhook_endpoints"
    _, first, _ = await send(sessions[0], path, BODIES[path], "kept a day")
    await send(sessions[0], "/v1/charges", BODIES["/v1/charges"], "kept for ever")
    for table in ("request_answers", "payments"):
        await database.execute(f"UPDATE {table} SET created_at = created_at - interval '23 h'")
    await forget_old_answers(database, 86_400)
    assert (await send(sessions[1], path, BODIES[path], "kept a day"))[1] == first
    for table in ("request_answers", "payments"):
        await database.execute(f"UPDATE {table} SET created_at = created_at - interval '2 h'")
    await forget_old_answers(database, 86_400)
    _, again, replayed = await send(sessions[1], path, BODIES[path], "kept a day")
    assert (again != first, replayed) == (True, None)
    charge = await send(sessions[1], "/v1/charges", BODIES["/v1/charges"], "kept for ever")
    assert charge[2] == "true"


async def test_an_endpoint_is_changed_and_merges_its_metadata(
    sessions: list[aiohttp.ClientSession], endpoint: str
) -> None:
    path = f"/v1/webhook_endpoints/{endpoint}"
    form = {"enabled_events[0]": "payment.completed", "metadata[a]": "1", "metadata[b]": "2"}
    async with sessions[0].post(path, data=form) as response:
        changed = await response.json()
    assert (changed["enabled_events"], changed["metadata"]) == (
        ["payment.completed"], {"a": "1", "b": "2"},
    )  # fmt: skip
    body = {"metadata": {"a": ""}, "url": "http://127.0.0.1:2/"}
    async with sessions[0].post(path, json=body) as response:
        changed = await response.json()
    assert (changed["metadata"], changed["url"]) == ({"b": "2"}, "http://127.0.0.1:2/")
    assert "secret" not in changed
    async with sessions[1].get(path) as response:
        assert await response.json() == changed
    many = {"metadata": {f"key {n}": "x" for n in range(50)}}
    async with sessions[0].post(path, json=many) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "metadata")
    assert "would have 51 keys" in error["message"]
    async with sessions[1].get(path) as response:
        assert await response.json() == changed


async def test_a_subscription_that_does_not_change_leaves_no_trace(
    sessions: list[aiohttp.ClientSession], endpoint: str, database: Database
) -> None:
    count = "SELECT count(*) FROM webhook_subscriptions WHERE endpoint_id = $1"
    path = f"/v1/webhook_endpoints/{endpoint}"
    for events in (["refund.failed", "payment.failed"], ["payment.failed", "refund.failed"]):
        async with sessions[0].post(path, json={"enabled_events": events}) as response:
            assert response.status == 200
    before = await database.fetchval(count, endpoint)
    async with sessions[0].post(path, json={"enabled_events": ["payment.failed"]}) as response:
        assert response.status == 200
    assert await database.fetchval(count, endpoint) == before + 1


async def test_an_endpoint_that_is_changed_while_it_is_deleted_is_deleted(
    sessions: list[aiohttp.ClientSession], database: Database
) -> None:
    for _ in range(20):
        async with sessions[0].post(
            "/v1/webhook_endpoints", json=BODIES["/v1/webhook_endpoints"]
        ) as response:
            path = f"/v1/webhook_endpoints/{(await response.json())['id']}"
        changes = [
            sessions[0].post(path, json={"enabled_events": [f"payment.{type_}"]})
            for type_ in ("completed", "processing")
        ]
        answers = await asyncio.gather(*changes, sessions[1].delete(path))
        assert answers[-1].status == 200
        async with sessions[0].get(path) as response:
            assert response.status == 404
    left = """
        SELECT count(*) FROM webhook_subscriptions AS s
          JOIN webhook_endpoints AS e ON e.account_id = s.account_id AND e.id = s.endpoint_id
         WHERE until IS NULL AND deleted_at IS NOT NULL
        """
    assert await database.fetchval(left) == 0


async def test_the_same_body_in_another_order_is_the_same_request(
    sessions: list[aiohttp.ClientSession],
) -> None:
    path, key = "/v1/webhook_endpoints", "in any order"
    one = BODIES[path] | {"enabled_events": ["payment.failed", "refund.failed"]}
    first = await send(sessions[0], path, one | {"metadata": {"a": "1", "b": "2"}}, key)
    other = one | {"enabled_events": ["refund.failed", "payment.failed"]}
    again = await send(sessions[1], path, other | {"metadata": {"b": "2", "a": "1"}}, key)
    assert again == (200, first[1], "true")


async def test_probes_do_not_wait_for_a_database_that_is_slow(
    sessions: list[aiohttp.ClientSession], database: Database
) -> None:
    async with database.transaction() as lock:
        await lock.execute("LOCK TABLE arrivals IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            async with sessions[0].get("/health") as response:
                assert (response.status, (await response.json())["payments"]) == (200, None)
            async with sessions[0].get("/metrics") as response:
                text = await response.text()
        assert "florin_http_requests_total" in text
        assert "florin_charges_total" not in text
