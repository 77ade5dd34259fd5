"""Accounts and their keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db import Database


async def insert_account(database: Database, id_: str, name: str) -> None:
    """A new account."""
    await database.execute("INSERT INTO accounts (id, name) VALUES ($1, $2)", id_, name)


async def insert_key(
    database: Database, *, account_id: str, id_: str, prefix: str, key_hash: bytes, role: str
) -> bool:
    """A new key, of which the hash alone is stored; False when there is no such account."""
    result = await database.execute(
        """
        INSERT INTO api_keys (account_id, id, prefix, key_hash, role)
        SELECT accounts.id, $2, $3, $4, $5 FROM accounts WHERE accounts.id = $1
        """,
        account_id,
        id_,
        prefix,
        key_hash,
        role,
    )
    return result == "INSERT 0 1"


async def list_keys(database: Database) -> Sequence[Mapping[str, Any]]:
    """All keys of all accounts, without what could be used of them."""
    return await database.fetch(
        """
        SELECT api_keys.id, account_id, accounts.name AS account, role, prefix,
               api_keys.created_at, revoked_at
          FROM api_keys JOIN accounts ON accounts.id = account_id
         ORDER BY account_id, api_keys.id
        """
    )


async def revoke_key(database: Database, id_: str) -> bool:
    """End a key; False when there is none of that id, or it was revoked before."""
    result = await database.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", id_
    )
    return result == "UPDATE 1"
