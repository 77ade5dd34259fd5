"""The HTTP contract, against a running API."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY
from tests.system import System, Urls, eventually, payment_body

PAYMENTS = "/api/v1/payments"


@pytest.fixture(scope="module")
async def http(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


@pytest.fixture(scope="module")
async def strict(urls: Urls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """An API that requires keys and limits users to ten requests a second."""
    directory: Path = tmp_path_factory.mktemp("strict")
    system = System(
        urls,
        directory,
        FLORIN_AUTH="required",
        FLORIN_RATE_LIMIT="10",
        FLORIN_RATE_BURST="10",
    )
    api = system.services["api"]
    try:
        await api.start(30)
        yield system
    finally:
        await api.stop()


async def ask(
    http: aiohttp.ClientSession, method: str, path: str, **options: Any
) -> tuple[int, Any, dict[str, str]]:
    async with http.request(method, path, **options) as response:
        return response.status, await response.json(), dict(response.headers)


async def create(http: aiohttp.ClientSession, **changes: Any) -> dict[str, Any]:
    status, body, _ = await ask(http, "POST", PAYMENTS, json=payment_body("user123") | changes)
    assert status == 202, body
    payment: dict[str, Any] = body["payment"]
    return payment


async def test_a_payment_is_shown_as_it_was_sent(http: aiohttp.ClientSession) -> None:
    payment = await create(
        http, amount="12.30", currency="usd", description="Tea", metadata={"order": "7"}
    )
    status, body, _ = await ask(http, "GET", f"{PAYMENTS}/{payment['id']}")
    assert status == 200
    found = body["payment"]
    for field, value in {
        "user_id": "user123",
        "amount": "12.30",
        "amount_minor": 1230,
        "currency": "USD",
        "description": "Tea",
        "metadata": {"order": "7"},
        "amount_refunded": "0.00",
        "created_at": payment["created_at"],
    }.items():
        assert found[field] == value


async def test_an_amount_is_exact_whatever_its_literal(http: aiohttp.ClientSession) -> None:
    for literal in ("1234567890123456.78", "1.2345678901234567e15", '"1234567890123456.78"'):
        text = f'{{"user_id":"u","amount":{literal},"currency":"USD"}}'
        status, body, _ = await ask(
            http, "POST", PAYMENTS, data=text, headers={"Content-Type": "application/json"}
        )
        assert status == 202, body
        assert body["payment"]["amount"] in ("1234567890123456.78", "1234567890123456.70")


@pytest.mark.parametrize(
    ("change", "param", "code", "says"),
    [
        ({"amount": 0}, "amount", "parameter_invalid", "greater than 0"),
        ({"amount": -5}, "amount", "parameter_invalid", "greater than 0"),
        ({"amount": "1.001"}, "amount", "parameter_invalid", "at most 2 decimals"),
        ({"amount": True}, "amount", "parameter_invalid", "must be a number"),
        ({"amount": None}, "amount", "parameter_invalid", "must be a number"),
        ({"currency": "XXX"}, "currency", "parameter_invalid", "ISO 4217"),
        ({"currency": 5}, "currency", "parameter_invalid", "must be a string"),
        ({"user_id": ""}, "user_id", "parameter_invalid", "at least 1 character"),
        ({"user_id": 7}, "user_id", "parameter_invalid", "must be a string"),
        ({"user_id": "x" * 256}, "user_id", "parameter_invalid", "at most 255"),
        ({"metadata": {"a": 1}}, "metadata[a]", "parameter_invalid", "must be a string"),
        ({"metadata": []}, "metadata", "parameter_invalid", "dictionary"),
        ({"colour": "red"}, "colour", "parameter_unknown", "Known here: user_id, amount"),
    ],
)
async def test_a_wrong_parameter_is_named_with_the_fix(
    change: dict[str, Any], param: str, code: str, says: str, http: aiohttp.ClientSession
) -> None:
    status, body, headers = await ask(http, "POST", PAYMENTS, json=payment_body("u") | change)
    error = body["error"]
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", code)
    assert error["param"] == param
    assert says in error["message"]
    assert error["request_id"] == headers["Request-Id"]


@pytest.mark.parametrize("missing", ["user_id", "amount", "currency"])
async def test_a_missing_parameter_is_named(missing: str, http: aiohttp.ClientSession) -> None:
    body = payment_body("u")
    del body[missing]
    status, answer, _ = await ask(http, "POST", PAYMENTS, json=body)
    assert (status, answer["error"]["code"]) == (400, "parameter_missing")
    assert answer["error"]["param"] == missing


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"amount": NaN}', "NaN is not"),
        (b'{"amount": 1, "amount": 2}', "stands twice"),
        (b'{"user_id": "a\\u0000"}', "NUL"),
        (b'{"user_id": "\\ud800"}', "surrogate"),
        (b'{"user_id": "\xff"}', "UTF-8"),
    ],
)
async def test_a_body_that_is_not_strict_json_is_refused(
    body: bytes, says: str, http: aiohttp.ClientSession
) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer, _ = await ask(http, "POST", PAYMENTS, data=body, headers=headers)
    assert (status, answer["error"]["code"]) == (400, "body_invalid")
    assert says in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "route_unknown"),
        ("GET", f"{PAYMENTS}/pay_none", {}, 404, "resource_missing"),
        ("GET", f"{PAYMENTS}/%00%ff", {}, 404, "resource_missing"),
        ("DELETE", PAYMENTS, {}, 405, "method_not_allowed"),
        ("POST", PAYMENTS, {"data": io.BytesIO(b"x" * 1_100_000)}, 413, "body_too_large"),
        (
            "POST",
            PAYMENTS,
            {"data": "a", "headers": {"Content-Type": "text/plain"}},
            415,
            "content_type_unsupported",
        ),
        ("POST", PAYMENTS, {"data": {"a": "b"}}, 400, "parameter_missing"),
        (
            "POST",
            PAYMENTS,
            {"data": b"{}", "headers": {"Content-Encoding": "gzip"}},
            415,
            "encoding_unsupported",
        ),
        ("GET", f"{PAYMENTS}?limit=0", {}, 400, "parameter_invalid"),
        ("GET", f"{PAYMENTS}?limit=ten", {}, 400, "parameter_invalid"),
        ("GET", f"{PAYMENTS}?colour=red", {}, 400, "parameter_unknown"),
        ("GET", f"{PAYMENTS}?status=lost", {}, 400, "parameter_invalid"),
        ("GET", f"{PAYMENTS}?limit=1&limit=2", {}, 400, "parameter_invalid"),
        ("GET", f"{PAYMENTS}?starting_after=a&ending_before=b", {}, 400, "parameter_invalid"),
        ("GET", f"{PAYMENTS}?user_id=%00", {}, 400, "parameter_invalid"),
    ],
)
async def test_every_error_has_the_one_envelope(
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str,
    http: aiohttp.ClientSession,
) -> None:
    headers = (
        {"Content-Type": "application/json"}
        if isinstance(options.get("data"), bytes | io.BytesIO)
        else {}
    )
    options = {**options, "headers": headers | options.get("headers", {})}
    found, body, _ = await ask(http, method, path, **options)
    assert (found, body["error"]["code"]) == (status, code)
    assert body["error"]["message"]
    assert body["error"]["request_id"].startswith("req_")


async def test_a_key_replays_the_answer_and_refuses_another_body(
    http: aiohttp.ClientSession,
) -> None:
    headers = {"Idempotency-Key": "order-42"}
    body = payment_body("u", "5.00")
    first, *others = await asyncio.gather(
        *(ask(http, "POST", PAYMENTS, json=body, headers=headers) for _ in range(30))
    )
    assert {status for status, _, _ in (first, *others)} == {202}
    assert all(answer == first[1] for _, answer, _ in others)
    replayed = ["Idempotent-Replayed" in found for _, _, found in (first, *others)]
    assert replayed.count(False) == 1

    respelled = dict(reversed(body.items())) | {"amount": 5}
    status, answer, _ = await ask(http, "POST", PAYMENTS, json=respelled, headers=headers)
    assert (status, answer) == (202, first[1])

    status, answer, _ = await ask(
        http, "POST", PAYMENTS, json=body | {"amount": 6}, headers=headers
    )
    assert (status, answer["error"]["type"]) == (400, "idempotency_error")


async def test_lists_page_in_both_directions_newest_first(http: aiohttp.ClientSession) -> None:
    made = [(await create(http, user_id="lister", amount=n + 1))["id"] for n in range(7)]
    newest_first = made[::-1]

    async def page(**query: str) -> dict[str, Any]:
        _, body, _ = await ask(http, "GET", PAYMENTS, params={"user_id": "lister", **query})
        assert (body["object"], body["url"]) == ("list", "/v1/payments")
        return {"ids": [row["id"] for row in body["data"]], "more": body["has_more"]}

    assert await page() == {"ids": newest_first, "more": False}
    assert await page(limit="3") == {"ids": newest_first[:3], "more": True}
    assert await page(limit="3", starting_after=newest_first[2]) == {
        "ids": newest_first[3:6],
        "more": True,
    }
    assert await page(limit="3", starting_after=newest_first[5]) == {
        "ids": newest_first[6:],
        "more": False,
    }
    assert await page(limit="3", ending_before=newest_first[5]) == {
        "ids": newest_first[2:5],
        "more": True,
    }
    assert await page(limit="3", ending_before=newest_first[2]) == {
        "ids": newest_first[:2],
        "more": False,
    }
    assert (await page(currency="JPY"))["ids"] == []


async def test_stats_and_health_count_payments_by_state(http: aiohttp.ClientSession) -> None:
    _, before, _ = await ask(http, "GET", f"{PAYMENTS}/metrics/stats")
    await create(http, currency="KWD", amount="1.234")
    await create(http, currency="KWD", amount="990.010")

    async def settled() -> Any:
        _, body, _ = await ask(http, "GET", f"{PAYMENTS}/metrics/stats")
        stats = body["stats"]
        return stats if stats["pending_payments"] + stats["processing_payments"] == 0 else None

    stats = await eventually(settled)
    assert stats["total_payments"] == before["stats"]["total_payments"] + 2
    assert stats["total_amount"]["KWD"] == "991.244"
    status, health, _ = await ask(http, "GET", "/health")
    assert status == 200
    assert set(health["payments"]) == {"pending", "processing", "completed", "failed"}
    assert sum(health["payments"].values()) == stats["total_payments"]
    assert health["uptime_seconds"] > 0
    assert health["memory_bytes"] > 1_000_000


async def test_ready_tells_what_was_checked(http: aiohttp.ClientSession) -> None:
    status, body, _ = await ask(http, "GET", "/ready")
    assert status == 200
    assert body["checks"]["postgres"] is True


async def test_the_other_mount_serves_the_same(http: aiohttp.ClientSession) -> None:
    payment = await create(http)
    status, body, _ = await ask(http, "GET", f"/v1/payments/{payment['id']}")
    assert (status, body["payment"]["id"]) == (200, payment["id"])


async def test_webhook_endpoints_are_made_shown_listed_and_deleted(
    http: aiohttp.ClientSession,
) -> None:
    path = "/api/v1/webhook_endpoints"
    body = {"url": "https://example.com/hook", "enabled_events": ["payment.completed"]}
    status, made, _ = await ask(http, "POST", path, json=body)
    assert status == 200
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    _, shown, _ = await ask(http, "GET", f"{path}/{made['id']}")
    assert shown == {key: value for key, value in made.items() if key != "secret"}
    _, listed, _ = await ask(http, "GET", path)
    assert shown in listed["data"]
    _, deleted, _ = await ask(http, "DELETE", f"{path}/{made['id']}")
    assert deleted == {"id": made["id"], "object": "webhook_endpoint", "deleted": True}
    for method in ("GET", "DELETE"):
        status, _, _ = await ask(http, method, f"{path}/{made['id']}")
        assert status == 404


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user:pw@example.com"}, "url"),
        ({"url": "/hook"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"enabled_events": []}, "enabled_events"),
        ({"enabled_events": ["payment.lost"]}, "enabled_events[0]"),
        ({"enabled_events": "*"}, "enabled_events"),
    ],
)
async def test_a_wrong_endpoint_is_refused_by_name(
    change: dict[str, Any], param: str, http: aiohttp.ClientSession
) -> None:
    body = {"url": "https://example.com/hook", "enabled_events": ["*"]} | change
    status, answer, _ = await ask(http, "POST", "/api/v1/webhook_endpoints", json=body)
    assert (status, answer["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "attacker.example"}, 403),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Authorization": "Bearer sk_wrong_wrong_wrong_wrong"}, 401),
        ({"Authorization": "Digest x"}, 401),
        ({"Authorization": "Basic \u00e9"}, 401),
        ({"Authorization": "Bearer sk_\u00e9"}, 401),
        ({"Origin": "http://["}, 403),
        ({"Authorization": f"Bearer {KEY}"}, 200),
    ],
)
async def test_the_open_loopback_lets_no_foreign_page_and_no_wrong_key_in(
    headers: dict[str, str], status: int, http: aiohttp.ClientSession
) -> None:
    found, _, _ = await ask(http, "GET", PAYMENTS, headers=headers)
    assert found == status


async def test_a_page_of_the_server_itself_is_let_in(system: System) -> None:
    async with aiohttp.ClientSession(system.url) as http:
        found, _, _ = await ask(http, "GET", PAYMENTS, headers={"Origin": system.url})
    assert found == 200


async def test_keys_are_required_where_the_setting_says_so(strict: System) -> None:
    basic = base64.b64encode(f"{KEY}:".encode()).decode()
    async with aiohttp.ClientSession(strict.url) as http:
        for headers, expected in (
            ({}, 401),
            ({"Authorization": "Bearer sk_test_0123456789abcdefghiX"}, 401),
            ({"Authorization": f"Bearer {KEY}"}, 200),
            ({"Authorization": f"Basic {basic}"}, 200),
            ({"Authorization": f"Bearer {KEY}", "Host": "api.example.com"}, 200),
        ):
            status, body, found = await ask(http, "GET", PAYMENTS, headers=headers)
            assert status == expected
            if status == 401:
                assert body["error"]["type"] == "authentication_error"
                assert "Bearer" in found["WWW-Authenticate"]
        status, _, _ = await ask(http, "GET", "/health")
        assert status == 200


async def test_fifteen_quick_requests_of_one_user_are_ten_and_then_429(strict: System) -> None:
    async with aiohttp.ClientSession(
        strict.url, headers={"Authorization": f"Bearer {KEY}"}
    ) as http:

        async def pay(user: str) -> tuple[int, Any, dict[str, str]]:
            return await ask(
                http, "POST", PAYMENTS, json=payment_body(user), headers={"X-User-ID": user}
            )

        answers = await asyncio.gather(*(pay("quick") for _ in range(15)))
        statuses = sorted(status for status, _, _ in answers)
        assert statuses[:10] == [202] * 10
        assert statuses[-1] == 429
        for status, body, headers in answers:
            assert headers["RateLimit-Policy"] == '"default";q=10;w=1'
            assert headers["RateLimit"].startswith('"default";r=')
            if status == 429:
                assert headers["Retry-After"] == "1"
                assert body["error"]["type"] == "rate_limit_error"
        assert (await pay("another"))[0] == 202, "users do not pay for each other"
        for _ in range(30):
            assert (await ask(http, "GET", "/health"))[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (
            b"POST /api/v1/payments HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (
            b"GET /v1/payments HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\n\r\n",
            417,
        ),
    ],
)
async def test_what_is_not_even_http_has_the_envelope_and_no_echo(
    sent: bytes, status: int, system: System
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    body = json.loads(await reader.readline())
    writer.close()
    assert f" {status} " in head.splitlines()[0]
    assert "Request-Id: req_" in head
    assert body["error"]["type"] == "invalid_request_error"
    assert "xxx" not in json.dumps(body)
