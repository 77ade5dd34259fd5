"""What a data directory remembers of its private instances: ports, passwords, the first API key."""

import dataclasses
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.ports import free_port
from shared.api_keys import make_key
from shared.sealing import make_sealing_key

FILE: Final = "instance.json"


@dataclass(frozen=True, slots=True)
class Instance:
    """Readable by its owner alone. Passwords stay for the life of the data; ports may move."""

    postgres_password: str
    rabbitmq_password: str
    api_key: str
    postgres_port: int
    amqp_port: int
    management_port: int
    distribution_port: int
    epmd_port: int
    sealing_key: str = ""

    @property
    def database_url(self) -> str:
        """The URL of Florin's database."""
        return self.database_url_of("florin")

    def database_url_of(self, database: str) -> str:
        """The URL of a database of the private Postgres."""
        return f"postgresql://florin:{self.postgres_password}@127.0.0.1:{self.postgres_port}/{database}"

    @property
    def amqp_url(self) -> str:
        """The URL of the private RabbitMQ's default virtual host."""
        return self.amqp_url_of("%2F")

    def amqp_url_of(self, vhost: str) -> str:
        """The URL of a virtual host of the private RabbitMQ."""
        return f"amqp://florin:{self.rabbitmq_password}@127.0.0.1:{self.amqp_port}/{vhost}"

    @property
    def management_url(self) -> str:
        """The URL of RabbitMQ's management UI."""
        return f"http://127.0.0.1:{self.management_port}"


def read(data: Path) -> Instance | None:
    """The instance of `data` as it was last started; None when there is none."""
    try:
        return Instance(**json.loads((data / FILE).read_text()))
    except FileNotFoundError:
        return None


def load_or_make(data: Path) -> Instance:
    """The instance of `data`, with ports that are free now. Call it while nothing of it runs."""
    file = data / FILE
    known = json.loads(file.read_text()) if file.exists() else {}
    ports = {
        name: free_port(known.get(name))
        for name in (
            "postgres_port",
            "amqp_port",
            "management_port",
            "distribution_port",
            "epmd_port",
        )
    }
    instance = Instance(
        postgres_password=known.get("postgres_password") or secrets.token_urlsafe(24),
        rabbitmq_password=known.get("rabbitmq_password") or secrets.token_urlsafe(18),
        api_key=known.get("api_key") or make_key(),
        sealing_key=known.get("sealing_key") or make_sealing_key(),
        **ports,
    )
    draft = data / f"{FILE}.new"
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(dataclasses.asdict(instance), indent=2))
    draft.replace(file)
    return instance
