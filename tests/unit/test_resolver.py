"""One dead name server keeps nobody else's look-ups waiting."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from services.notifier import resolver
from services.notifier.resolver import Resolver


async def test_a_name_leads_to_its_addresses() -> None:
    found = Resolver(2)
    addresses = await found.resolve("localhost", 80)
    assert ("127.0.0.1", 80) in {address for _, _, _, _, address in addresses}
    found.close()


async def test_silent_name_servers_do_not_keep_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered, look_up = threading.Event(), resolver._look_up

    def sometimes_silent(host: str, port: int) -> Any:
        if host.startswith("silent"):
            answered.wait(20)
        return look_up("127.0.0.1", port)

    monkeypatch.setattr(resolver, "_look_up", sometimes_silent)
    found = Resolver(40)
    waiting = [asyncio.create_task(found.resolve(f"silent{n}.test", 80)) for n in range(30)]
    async with asyncio.timeout(5):
        assert await found.resolve("quick.test", 80)
    answered.set()
    await asyncio.gather(*waiting)
    found.close()


async def test_a_name_that_was_not_found_is_not_asked_about_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def unknown(host: str, _port: int) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(resolver, "_look_up", unknown)
    found = Resolver(2)
    for _ in range(3):
        with pytest.raises(OSError, match=r"nowhere\.test leads nowhere: Name or service"):
            await found.resolve("nowhere.test", 80)
    assert asked == ["nowhere.test"]
    monkeypatch.setattr(resolver, "REMEMBERED_UNKNOWN", 0.0)
    found._found.clear()
    for _ in range(2):
        with pytest.raises(OSError, match="leads nowhere"):
            await found.resolve("nowhere.test", 80)
    assert len(asked) == 3
    found.close()
