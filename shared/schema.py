"""What the services know of the database's schema."""

from typing import Final

from shared.db import Database
from shared.errors import Misconfigured
from shared.store import find_schema_version

SCHEMA_VERSION: Final = 11
"""The newest migration that this code knows."""

DEFAULT_ACCOUNT: Final = "acct_default"


async def require_schema(database: Database) -> None:
    """Raise Misconfigured unless the schema is the one that this code was written for."""
    version = await find_schema_version(database)
    if version != SCHEMA_VERSION:
        remedy = (
            "run `./florin migrate`"
            if version is None or version < SCHEMA_VERSION
            else "this code is older than the database: deploy the release that migrated it"
        )
        raise Misconfigured(
            f"the schema is at version {version}, this code needs {SCHEMA_VERSION}: {remedy}"
        )
