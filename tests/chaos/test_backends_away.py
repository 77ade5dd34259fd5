"""RabbitMQ or Postgres goes away mid-load and comes back, under the real `./florin up`."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from deploy.local.ports import free_port
from shared.db import Database, open_database
from tests.invariants import assert_invariants, open_payments
from tests.receiver import Receiver
from tests.system import ROOT, SETTINGS, Load, eventually


class Up:
    """A running `./florin up`."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path, port: int) -> None:
        self.process = process
        self.data = data
        self.url = f"http://127.0.0.1:{port}"

    def pid_of(self, name: str) -> int:
        """The process id of one of its processes, as it recorded it."""
        pid: int = json.loads((self.data / "processes.json").read_text())[name]["pid"]
        return pid

    async def is_ready(self) -> bool:
        """Whether everything is ready, as it notes in its lock for the next one to read."""
        assert self.process.returncode is None, "it ended"
        with contextlib.suppress(OSError, ValueError):
            noted = json.loads((self.data / "lock").read_text())
            return bool(noted == {"pid": self.process.pid, "url": self.url})
        return False

    @property
    def database_url(self) -> str:
        """The URL of its private Postgres."""
        known = json.loads((self.data / "instance.json").read_text())
        return (
            f"postgresql://florin:{known['postgres_password']}"
            f"@127.0.0.1:{known['postgres_port']}/florin"
        )


OVER_EMBEDDED = {n: v for n, v in SETTINGS.items() if n != "FLORIN_WEBHOOK_ALLOWED_NETWORKS"}
"""Settings of tests, but for what the embedded default must allow by itself."""


@contextlib.asynccontextmanager
async def running_up(data: Path, port: int, **settings: str) -> AsyncIterator[Up]:
    """`./florin up`, ready, and told to stop at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "up", "--data", str(data), "--port", str(port),
        cwd=ROOT,
        env={**os.environ, **OVER_EMBEDDED, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    up = Up(process, data, port)
    try:
        await eventually(up.is_ready, 90)
        yield up
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with running_up(tmp_path_factory.mktemp("up") / "data", free_port()) as up:
        yield up


@pytest.fixture(scope="module")
async def up_database(up: Up) -> AsyncIterator[Database]:
    database = await open_database(up.database_url, service="tests", size=4, wait=10)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("backend", "sent"),
    [("rabbitmq", signal.SIGTERM), ("rabbitmq", signal.SIGKILL), ("postgres", signal.SIGINT),
     ("postgres", signal.SIGQUIT)],
)  # fmt: skip
async def test_a_backend_that_stops_and_starts_mid_load_loses_nothing(
    backend: str, sent: signal.Signals, up: Up, up_database: Database, receiver: Receiver
) -> None:
    async with aiohttp.ClientSession(up.url, raise_for_status=True) as session:
        body = {"url": receiver.url, "enabled_events": ["payment.completed"]}
        async with session.post("/api/v1/webhook_endpoints", json=body) as response:
            endpoint = await response.json()

        async with Load(up.url).running() as load:
            await load.more(200)
            old = up.pid_of(backend)
            os.kill(old, sent)
            if backend == "rabbitmq":
                await load.more(200)  # accepting depends on Postgres alone
                assert load.refused == []

            async def is_replaced() -> bool:
                with contextlib.suppress(KeyError):
                    return up.pid_of(backend) != old
                return False

            await eventually(is_replaced, 60)
            await load.more(200)
        accepted = load.accepted.values()
        assert set(load.refused) <= {503}, "while Postgres is away, and nothing else"
        await receiver.wait_until(lambda: receiver.has_heard_the_outcome_of(accepted), 120)

        async def all_settled() -> bool:
            return await open_payments(up_database) == 0

        await eventually(all_settled, 60)
        assert set(receiver.times("payment.completed")) == set(accepted)
        await assert_invariants(up_database)
        await session.delete(f"/api/v1/webhook_endpoints/{endpoint['id']}")
