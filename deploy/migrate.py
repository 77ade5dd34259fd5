"""Brings a database's schema up to date: numbered .sql files, forward only, each in a transaction.

Only this deploy step changes the schema. One runs at a time (an advisory lock), and none waits long
for a table that is in use (`lock_timeout`): it fails, and can be run again.
"""

from __future__ import annotations  # asyncpg's classes are generic in its stubs alone

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr, field_validator

from shared.api_keys import MINIMUM_LENGTH, hash_key, is_well_formed, make_key, prefix_of
from shared.config import Settings
from shared.errors import Misconfigured
from shared.ids import new_id
from shared.log import without_secrets
from shared.schema import DEFAULT_ACCOUNT

DIRECTORY: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x666C6F72696E  # "florin"
_NAME: Final = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Every migration, in order."""
    found = []
    for path in sorted(DIRECTORY.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise Misconfigured(f"{path.name} is not named like 0001_what_it_does.sql")
        found.append(Migration(int(match["version"]), match["name"], path.read_text()))
    return found


class BootstrapSettings(Settings):
    """What preparing a database needs to know."""

    bootstrap_key: SecretStr | None = None
    """The default account's first key: `sk_` and 21 characters or more."""

    @field_validator("bootstrap_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_well_formed(value.get_secret_value()):
            raise ValueError(
                f"must start with sk_ and have {MINIMUM_LENGTH} characters or more; leave it out to"
                " have one made"
            )
        return value


async def migrate(url: str, *, first_key: str | None) -> tuple[list[Migration], str | None]:
    """Apply what is missing, and see to it that the default account has a key.

    That key is `first_key`, or is made when the account has none. Returns the migrations applied,
    and the key if it was made here: it is not stored, so show it now. Raises Misconfigured when the
    database cannot be reached or a lock cannot be had in time.
    """
    where = without_secrets(url)
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise Misconfigured(f"no Postgres at {where}: {error}") from None
    try:
        await connection.execute("SET lock_timeout = '5s'")
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        applied = await _apply_missing(connection)
        made = None
        if first_key is None and not await connection.fetchval("SELECT 1 FROM api_keys LIMIT 1"):
            made = make_key()
        if key := first_key or made:
            await _add_key(connection, key)
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        raise Misconfigured(
            f"{where} is in use and could not be changed now: run it again"
        ) from None
    else:
        return applied, made
    finally:
        await connection.close()


async def _apply_missing(connection: asyncpg.Connection[asyncpg.Record]) -> list[Migration]:
    await connection.execute(
        """
        CREATE TABLE IF NOT EXISTS schema_migrations (
            version     integer PRIMARY KEY,
            name        text NOT NULL,
            applied_at  timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    known = {row["version"] for row in await connection.fetch("SELECT * FROM schema_migrations")}
    missing = [migration for migration in migrations() if migration.version not in known]
    for migration in missing:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
                migration.version,
                migration.name,
            )
    return missing


async def _add_key(connection: asyncpg.Connection[asyncpg.Record], key: str) -> None:
    await connection.execute(
        """
        INSERT INTO api_keys (account_id, id, prefix, key_hash, role)
        SELECT $1, $2, $3, $4, 'secret'
         WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE prefix = $3 AND key_hash = $4)
        """,
        DEFAULT_ACCOUNT,
        new_id("key"),
        prefix_of(key),
        hash_key(key),
    )
