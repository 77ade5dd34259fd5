"""Keys: shown once, stored as a hash, and each opens one account."""

import asyncio
import re
from collections.abc import Sequence

import pytest

from cli.keys import Role, create_key
from cli.store.keys import insert_key
from services.api.auth import Authenticator, Caller
from services.api.errors import Problem
from services.api.store.keys import find_keys
from shared.api_keys import hash_key
from shared.db import Database, Row
from shared.errors import Misconfigured
from tests.system import Urls, run_command


async def keys(urls: Urls, *arguments: str) -> tuple[int, str]:
    """`./florin keys …`."""
    return await run_command("keys", *arguments, "--database-url", urls.database)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_made_shown_once_listed_and_revoked(urls: Urls, database: Database) -> None:
    status, output = await keys(urls, "create", "--new-account", "Shop", "--role", "operator")
    assert status == 0, output
    key, account = re.findall(r"(sk_\S+)", output)[0], re.findall(r"(acct_\S+)", output)[0]

    stored = await database.fetch("SELECT * FROM api_keys WHERE account_id = $1", account)
    assert key not in str([dict(row) for row in stored]), "only the hash is stored"

    status, listed = await keys(urls, "list")
    assert status == 0
    line = next(line for line in listed.splitlines() if account in line)
    assert "Shop" in line and "operator" in line
    assert key not in listed

    authenticator = Authenticator(database, local=False)
    assert await authenticator.authenticate(bearer(key), now=0) == Caller(
        account, stored[0]["id"], "operator"
    )

    status, output = await keys(urls, "revoke", stored[0]["id"])
    assert status == 0, output
    assert (await authenticator.authenticate(bearer(key), now=9)).account_id == account
    with pytest.raises(Problem) as refused:
        await authenticator.authenticate(bearer(key), now=11)
    assert refused.value.status == 401

    status, output = await keys(urls, "revoke", stored[0]["id"])
    assert status == 1
    assert "there is no key" in output


async def test_a_key_that_many_use_at_once_is_looked_for_once(
    urls: Urls, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, output = await keys(urls, "create", "--new-account", "Busy")
    key = re.findall(r"(sk_\S+)", output)[0]
    looks = 0

    async def find(database: Database, prefix: str) -> Sequence[Row]:
        nonlocal looks
        looks += 1
        return await find_keys(database, prefix)

    monkeypatch.setattr("services.api.auth.find_keys", find)
    authenticator = Authenticator(database, local=False)
    for now in (0, 11):
        callers = await asyncio.gather(
            *(authenticator.authenticate(bearer(key), now=now) for _ in range(50))
        )
        assert len(set(callers)) == 1
    assert looks == 2


async def test_an_account_that_does_not_exist_gets_no_key(database: Database) -> None:
    with pytest.raises(Misconfigured, match="there is no account acct_none"):
        await create_key(database, account_id="acct_none", new_account=None, role=Role.SECRET)


async def test_of_two_keys_that_start_alike_each_opens_its_own_account(
    database: Database,
) -> None:
    accounts = {}
    for name in ("one", "two"):
        account, _ = await create_key(database, account_id="", new_account=name, role=Role.SECRET)
        key = f"sk_alike_alike_alike_alike_{name}"
        await insert_key(
            database,
            account_id=account,
            id_=f"key_{name}",
            prefix=key[:12],
            key_hash=hash_key(key),
            role="secret",
        )
        accounts[key] = account
    authenticator = Authenticator(database, local=True)
    for key, account in accounts.items():
        assert (await authenticator.authenticate(bearer(key), now=0)).account_id == account
    with pytest.raises(Problem):
        await authenticator.authenticate(bearer("sk_alike_alike_alike_alike_three"), now=0)
