"""Which database an operator's command is meant for."""

import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.local.instance import read
from shared.errors import Misconfigured

Data = Annotated[
    Path, typer.Option("--data", help="The data directory of a running `./florin up`.")
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="A Postgres URL, in place of --data.")
]
DEFAULT_DATA = Path(".florin")


def database_url(data: Path, url: str | None) -> str:
    """The URL that was given, else FLORIN_DATABASE_URL's, else that of the data directory.

    Raises Misconfigured when there is none of them.
    """
    url = url or os.environ.get("FLORIN_DATABASE_URL")
    if url:
        return url
    instance = read(data.resolve())
    if instance is None:
        raise Misconfigured(
            f"no data directory at {data}: say --data DIR, or --database-url URL, or set"
            " FLORIN_DATABASE_URL"
        )
    return instance.database_url
