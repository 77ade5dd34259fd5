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


async def test_all_who_want_a_name_wait_for_one_look_up_and_who_gives_up_does_so_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, asked = threading.Event(), []

    def two_addresses(host: str, port: int) -> Any:
        asked.append(host)
        go.wait(20)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("192.0.2.1", port)), (*kind, ("192.0.2.2", port))]

    monkeypatch.setattr(resolver, "_look_up", two_addresses)
    found = Resolver(2)
    waiting = [asyncio.create_task(found.resolve("shop.test", 443)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go.set()
    answers = [await waiting[1], await waiting[2], await found.resolve("shop.test", 443)]
    assert waiting[0].cancelled()
    assert asked == ["shop.test"]
    first = [addresses[0][4][0] for addresses in answers]
    assert first == ["192.0.2.1", "192.0.2.2", "192.0.2.1"], "each time another one"
    found.close()


@pytest.mark.parametrize(
    ("address", "reached"),
    [("192.0.2.1", ("192.0.2.1", 80)), ("2001:db8::1", ("2001:db8::1", 80, 0, 0))],
)
async def test_an_address_is_not_looked_up(
    address: str, reached: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(resolver, "_look_up")
    found = Resolver(2)
    [(_, _, protocol, _, where)] = await found.resolve(address, 80)
    assert (protocol, where) == (socket.IPPROTO_TCP, reached)
    found.close()
