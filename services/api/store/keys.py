"""API keys: found by prefix, compared by hash elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db import Database


async def find_keys(database: Database, prefix: str) -> Sequence[Mapping[str, Any]]:
    """Keys that are in force and start with `prefix`: account_id, id, key_hash, role."""
    return await database.fetch(
        """
        SELECT account_id, id, key_hash, role
          FROM api_keys
         WHERE prefix = $1 AND revoked_at IS NULL
        """,
        prefix,
    )


async def has_keys(database: Database) -> bool:
    """Whether any key is in force."""
    found: bool = await database.fetchval(
        "SELECT EXISTS (SELECT 1 FROM api_keys WHERE revoked_at IS NULL)"
    )
    return found
