"""`./florin keys`: who may use the API. A key is shown once; only its hash is stored."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.store.keys import insert_account, insert_key, list_keys, revoke_key
from cli.target import DEFAULT_DATA, Data, DatabaseUrl, database_url
from shared.api_keys import hash_key, make_key, prefix_of
from shared.db import Database, open_database
from shared.errors import Misconfigured
from shared.ids import new_id
from shared.schema import DEFAULT_ACCOUNT
from shared.sealing import make_sealing_key

app = typer.Typer(help="Who may use the API.", no_args_is_help=True)


@app.command()
def sealing() -> None:
    """Make a key for FLORIN_SEALING_KEYS, with which signing secrets are sealed at rest."""
    typer.echo(make_sealing_key())


class Role(StrEnum):
    """What a key may do."""

    SECRET = "secret"  # noqa: S105 - the name of a role
    OPERATOR = "operator"


async def create_key(
    database: Database, *, account_id: str, new_account: str | None, role: Role
) -> tuple[str, str]:
    """Make a key for an account, or for a new one of that name. Returns (account id, key)."""
    if new_account is not None:
        account_id = new_id("acct")
        await insert_account(database, account_id, new_account)
    key = make_key()
    made = await insert_key(
        database,
        account_id=account_id,
        id_=new_id("key"),
        prefix=prefix_of(key),
        key_hash=hash_key(key),
        role=role,
    )
    if not made:
        raise Misconfigured(
            f"there is no account {account_id}: `./florin keys list` shows those there are, and"
            " --new-account NAME makes one"
        )
    return account_id, key


@app.command()
def create(
    account: Annotated[str, typer.Option(help="The account's id.")] = DEFAULT_ACCOUNT,
    new_account: Annotated[
        str | None, typer.Option(help="The name of a new account, in place of --account.")
    ] = None,
    role: Annotated[Role, typer.Option(help="What the key may do.")] = Role.SECRET,
    data: Data = DEFAULT_DATA,
    url: DatabaseUrl = None,
) -> None:
    """Make a key and show it, this once."""

    async def run(database: Database) -> None:
        account_id, key = await create_key(
            database, account_id=account, new_account=new_account, role=role
        )
        typer.echo(f"account  {account_id}\nrole     {role}\nkey      {key}")

    _with_database(data, url, run)


@app.command("list")
def list_(data: Data = DEFAULT_DATA, url: DatabaseUrl = None) -> None:
    """Show all keys, without what could be used of them."""

    async def run(database: Database) -> None:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for name in ("id", "account", "name", "role", "starts with", "made", "revoked"):
            table.add_column(name, no_wrap=True)
        for row in await list_keys(database):
            table.add_row(
                row["id"],
                row["account_id"],
                row["account"],
                row["role"],
                row["prefix"],
                f"{row['created_at']:%Y-%m-%d %H:%M}",
                f"{row['revoked_at']:%Y-%m-%d %H:%M}" if row["revoked_at"] else "",
            )
        Console(width=None if Console().is_terminal else 200).print(table)

    _with_database(data, url, run)


@app.command()
def revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as listed: key_….")],
    data: Data = DEFAULT_DATA,
    url: DatabaseUrl = None,
) -> None:
    """End a key. Services believe a key for ten seconds before they look again."""

    async def run(database: Database) -> None:
        if not await revoke_key(database, id_):
            raise Misconfigured(f"there is no key {id_} in force: `./florin keys list` shows them")
        typer.echo(f"revoked {id_}; it stops working within ten seconds")

    _with_database(data, url, run)


def _with_database(data: Path, url: str | None, run: Callable[[Database], Awaitable[None]]) -> None:
    async def main() -> None:
        database = await open_database(database_url(data, url), service="keys", size=1, wait=5)
        try:
            await run(database)
        finally:
            await database.close()

    asyncio.run(main())
