"""Who pays in a measurement: accounts with a key, and endpoints that hear what became of it."""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp

from bench.receiver import Receiver
from bench.store import Account, insert_accounts
from shared.api_keys import hash_key, make_key, prefix_of
from shared.db import open_database

EVENTS: Final = ("payment.completed", "payment.failed", "refund.completed", "refund.failed")
AT_ONCE: Final = 16


async def make_accounts(database_url: str, number: int) -> list[str]:
    """Make accounts in the database of a private system; returns a key of each."""
    keys = [make_key() for _ in range(number)]
    accounts = [
        Account(f"acct_bench{place:06}", f"key_bench{place:06}", prefix_of(key), hash_key(key))
        for place, key in enumerate(keys)
    ]
    database = await open_database(database_url, service="bench", size=1, wait=5)
    try:
        await insert_accounts(database, accounts)
    finally:
        await database.close()
    return keys


async def subscribe(url: str, keys: Sequence[str], receiver: Receiver) -> None:
    """Make a healthy endpoint for each key's account, which hears each outcome once."""
    waiting = list(enumerate(keys))

    async def work(http: aiohttp.ClientSession) -> None:
        while waiting:
            place, key = waiting.pop()
            path = f"/healthy/{place}"
            made = await _subscribe(http, key, f"{receiver.url}{path}")
            receiver.secrets[path] = made["secret"]

    async with aiohttp.ClientSession(url) as http:
        await asyncio.gather(*(work(http) for _ in range(AT_ONCE)))


async def add_endpoints(url: str, key: str, receiver: Receiver, kinds: Sequence[str]) -> None:
    """Make an endpoint of each kind for one account."""
    async with aiohttp.ClientSession(url) as http:
        for kind in kinds:
            await _subscribe(http, key, f"{receiver.url}/{kind}")


async def unsubscribe(url: str, key: str, receiver: Receiver) -> None:
    """Delete the endpoints of an account that lead to this receiver."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(url, headers=headers, raise_for_status=True) as http:
        async with http.get("/v1/webhook_endpoints", params={"limit": "100"}) as response:
            endpoints = (await response.json())["data"]
        for endpoint in endpoints:
            if endpoint["url"].startswith(receiver.url):
                async with http.delete(f"/v1/webhook_endpoints/{endpoint['id']}"):
                    pass


async def _subscribe(http: aiohttp.ClientSession, key: str, url: str) -> dict[str, str]:
    body = {"url": url, "enabled_events": EVENTS}
    headers = {"Authorization": f"Bearer {key}"}
    async with http.post("/v1/webhook_endpoints", json=body, headers=headers) as response:
        response.raise_for_status()
        made: dict[str, str] = await response.json()
        return made
