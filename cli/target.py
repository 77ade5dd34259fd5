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
    if url:
        return url
    settings = load(Settings)
    if "database_url" in settings.model_fields_set:
        return settings.database_url.get_secret_value()
    return _instance(data, "DATABASE").database_url


def amqp_url(data: Path, url: str | None) -> str:
    """The URL that was given, else FLORIN_AMQP_URL's, else that of the data directory.

    Raises Misconfigured when there is none of them.
    """
    if url:
        return url
    settings = load(Settings)
    if "amqp_url" in settings.model_fields_set:
        return settings.amqp_url.get_secret_value()
    return _instance(data, "AMQP").amqp_url


def _instance(data: Path, kind: str) -> Instance:
    instance = read(data.resolve())
    if instance is None:
        raise Misconfigured(
            f"no data directory at {data}: say --data DIR, or --{kind.lower()}-url URL, or set"
            f" FLORIN_{kind}_URL"
        )
    return instance
