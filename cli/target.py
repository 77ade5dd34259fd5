"""Which database and which broker an operator's command is meant for."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.local.instance import Instance, read
from shared.config import Settings, load
from shared.errors import Misconfigured

Data = Annotated[
    Path, typer.Option("--data", help="The data directory of a running `./florin up`.")
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="A Postgres URL, in place of --data.")
]
AmqpUrl = Annotated[
    str | None, typer.Option("--amqp-url", help="A RabbitMQ URL, in place of --data.")
]
DEFAULT_DATA = Path(".florin")


def database_url(data: Path, url: str | None) -> str:
    """The URL that was given, else FLORIN_DATABASE_URL's, else that of the data directory.

    Raises Misconfigured when there is none of them.
    """
    return url or given_urls()[0] or _instance(data, "DATABASE").database_url


def amqp_url(data: Path, url: str | None) -> str:
    """The URL that was given, else FLORIN_AMQP_URL's, else that of the data directory.

    Raises Misconfigured when there is none of them.
    """
    return url or given_urls()[1] or _instance(data, "AMQP").amqp_url


def given_urls() -> tuple[str | None, str | None]:
    """FLORIN_DATABASE_URL and FLORIN_AMQP_URL, each None where nobody set it."""
    settings = load(Settings)
    said = settings.model_fields_set
    return (
        settings.database_url.get_secret_value() if "database_url" in said else None,
        settings.amqp_url.get_secret_value() if "amqp_url" in said else None,
    )


def _instance(data: Path, kind: str) -> Instance:
    instance = read(data.resolve())
    if instance is None:
        raise Misconfigured(
            f"no data directory at {data}: say --data DIR, or --{kind.lower()}-url URL, or set"
            f" FLORIN_{kind}_URL"
        )
    return instance
