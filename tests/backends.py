"""What the tests stand on: a Postgres and a RabbitMQ, from one of three places.

`local`: private instances of this machine's binaries, as `./florin up` starts them.
`testcontainers`: pinned images, where a Docker engine answers.
`url`: servers that run already: FLORIN_TEST_DATABASE_URL, FLORIN_TEST_AMQP_URL and
FLORIN_TEST_MANAGEMENT_URL, of users who may make databases and virtual hosts.
`auto`: local where the binaries are, else testcontainers where Docker answers, else local, which
installs them.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest

from deploy.local.backends import Backends
from deploy.local.binaries import find_or_install, find_postgres, find_rabbitmq
from deploy.local.instance import load_or_make
from deploy.local.processes import Record

POSTGRES_IMAGE: Final = os.environ.get("POSTGRES_IMAGE", "postgres:17")
RABBITMQ_IMAGE: Final = os.environ.get("RABBITMQ_IMAGE", "rabbitmq:4.1-management")
CHOICES: Final = ("auto", "local", "testcontainers", "url")
PATIENCE: Final = 90.0
"""Seconds for a container to answer."""


@dataclass(frozen=True, slots=True)
class Servers:
    """A running Postgres and RabbitMQ, and who may do everything there."""

    database: str
    """The URL of a database of this Postgres, of a user who may make others."""
    amqp: str
    """The URL of a virtual host of this RabbitMQ, of an administrator."""
    management: str
    """The URL of its management API, without user and password."""

    def database_url_of(self, database: str) -> str:
        """The URL of another database."""
        return _with_path(self.database, database)

    def amqp_url_of(self, vhost: str) -> str:
        """The URL of another virtual host."""
        return _with_path(self.amqp, quote(vhost, safe=""))

    @property
    def authorization(self) -> str:
        """The header with which the management API lets the administrator in."""
        parts = urlsplit(self.amqp)
        return aiohttp.encode_basic_auth(parts.username or "guest", parts.password or "guest")


def choose(wanted: str) -> str:
    """The place that `wanted` comes to on this machine."""
    if wanted != "auto":
        return wanted
    if not (find_postgres() and find_rabbitmq()) and docker_answers():
        return "testcontainers"
    return "local"


def docker_answers() -> bool:
    """Whether there is a Docker engine."""
    try:
        return not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


@contextlib.asynccontextmanager
async def running(backend: str, data: Path) -> AsyncIterator[Servers]:
    """Servers for the length of the block."""
    places: dict[str, Callable[[Path], contextlib.AbstractAsyncContextManager[Servers]]] = {
        "local": _local,
        "testcontainers": _testcontainers,
        "url": _given,
    }
    async with places[backend](data) as servers:
        yield servers


@contextlib.asynccontextmanager
async def _local(data: Path) -> AsyncIterator[Servers]:
    binaries = find_or_install(print)
    instance = load_or_make(data)
    backends = Backends(data, binaries, instance, Record(data / "processes.json"), print)
    try:
        await backends.start()
        yield Servers(
            instance.database_url_of("postgres"), instance.amqp_url, instance.management_url
        )
    finally:
        await backends.stop()


@contextlib.asynccontextmanager
async def _testcontainers(_: Path) -> AsyncIterator[Servers]:
    # Containers are stopped below; who should do so after a kill -9 is an image of its own.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer

    postgres = (
        DockerContainer(POSTGRES_IMAGE)
        .with_env("POSTGRES_USER", "florin")
        .with_env("POSTGRES_PASSWORD", "florin")
        .with_command("postgres -cmax_connections=200 -cshared_buffers=256MB")
        .with_exposed_ports(5432)
    )
    rabbitmq = (
        DockerContainer(RABBITMQ_IMAGE)
        .with_env("RABBITMQ_DEFAULT_USER", "florin")
        .with_env("RABBITMQ_DEFAULT_PASS", "florin")
        .with_exposed_ports(5672, 15672)
    )
    with contextlib.ExitStack() as stack:
        for container in (postgres, rabbitmq):
            await asyncio.to_thread(container.start)
            stack.callback(container.stop)
        host = rabbitmq.get_container_host_ip()
        servers = Servers(
            f"postgresql://florin:florin@{host}:{postgres.get_exposed_port(5432)}/florin",
            f"amqp://florin:florin@{host}:{rabbitmq.get_exposed_port(5672)}/%2F",
            f"http://{host}:{rabbitmq.get_exposed_port(15672)}",
        )
        await _answering(servers)
        yield servers


@contextlib.asynccontextmanager
async def _given(_: Path) -> AsyncIterator[Servers]:
    names = [f"FLORIN_TEST_{name}_URL" for name in ("DATABASE", "AMQP", "MANAGEMENT")]
    if missing := [name for name in names if not os.environ.get(name)]:
        pytest.exit(f"--backend=url needs {', '.join(missing)}", returncode=2)
    servers = Servers(*(os.environ[name].rstrip("/") for name in names))
    await _answering(servers)
    yield servers


async def _answering(servers: Servers) -> None:
    """Wait until both take work. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not (  # noqa: ASYNC110 - two programs that tell nobody when they are ready
            await _postgres_answers(servers) and await _rabbitmq_answers(servers)
        ):
            await asyncio.sleep(0.2)


async def _postgres_answers(servers: Servers) -> bool:
    try:
        connection = await asyncpg.connect(servers.database, timeout=2)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


async def _rabbitmq_answers(servers: Servers) -> bool:
    url = f"{servers.management}/api/health/checks/port-listener/5672"
    headers = {"Authorization": servers.authorization}
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers) as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))
