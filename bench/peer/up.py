"""`python -m bench.peer.up VARIANT DIRECTORY`: the peer on private Postgres and RabbitMQ.

What `./florin up` is to Florin: it starts everything as its children, says the API's URL, and ends
everything on SIGTERM. The Postgres and the RabbitMQ are Florin's own private ones, with the same
settings.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp

from bench.peer.environment import HERE, VENV
from bench.store import Account, insert_accounts
from bench.system import SETTINGS
from deploy.local.backends import Backends
from deploy.local.binaries import find_or_install
from deploy.local.instance import Instance, load_or_make
from deploy.local.ports import free_port
from deploy.local.processes import Command, Record
from deploy.local.supervisor import Supervised
from shared.api_keys import hash_key, prefix_of
from shared.db import open_database
from shared.errors import FlorinError, Misconfigured
from shared.schema import DEFAULT_ACCOUNT

CONCURRENCY: Final = 8
"""Processes of the worker: with 2, 4 and 16 less goes through two cores."""
START_TIMEOUT: Final = 60.0


class _Up:
    def __init__(self, variant: str, data: Path) -> None:
        self._data = data
        self._record = Record(data / "processes.json")
        self._instance = load_or_make(data)
        self._port = free_port()
        self._ready_file = data / "worker-is-ready"
        self._environment = _environment(variant, self._instance, self._ready_file)
        self._running: list[Supervised] = []

    async def run(self) -> None:
        """Start everything, say where, and end it when told to."""
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        starting = asyncio.create_task(self._start())

        def on_signal() -> None:
            ending.set()
            starting.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        try:
            await starting
            print(f"http://127.0.0.1:{self._port}", flush=True)
            await ending.wait()
        except asyncio.CancelledError:
            pass
        finally:
            for process in reversed(self._running):
                await process.stop()

    async def _start(self) -> None:
        binaries = await asyncio.to_thread(find_or_install, _say)
        backends = Backends(self._data, binaries, self._instance, self._record, _say)
        # In the order in which Backends stops them, reversed.
        self._running += [backends.epmd, backends.postgres, backends.rabbitmq]
        await backends.start()
        await asyncio.to_thread(self._create_tables)
        await self._add_account()
        worker = self._supervised(
            "worker",
            ["celery", "--app", "app.tasks", "worker", "--pool", "prefork", "--concurrency",
             str(CONCURRENCY), "--loglevel", "WARNING"],
            self._worker_is_ready,
        )  # fmt: skip
        api = self._supervised(
            "api",
            ["uvicorn", "app.api:app", "--host", "127.0.0.1", "--port", str(self._port), "--loop",
             "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log"],
            _answers(f"http://127.0.0.1:{self._port}/health"),
        )  # fmt: skip
        self._running += [worker, api]
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.start(START_TIMEOUT))
            group.create_task(api.start(START_TIMEOUT))

    def _create_tables(self) -> None:
        done = subprocess.run(
            [VENV / "bin" / "python", "-m", "app.create_tables"],
            cwd=HERE,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Misconfigured(f"the peer's tables could not be made:\n{done.stderr.strip()}")

    async def _add_account(self) -> None:
        key = self._instance.api_key
        account = Account(DEFAULT_ACCOUNT, "key_default", prefix_of(key), hash_key(key))
        database = await open_database(self._instance.database_url, service="bench", size=1, wait=5)
        try:
            await insert_accounts(database, [account])
        finally:
            await database.close()

    def _supervised(
        self, name: str, arguments: list[str], is_ready: Callable[[], Awaitable[bool]]
    ) -> Supervised:
        command = Command(
            name=name,
            arguments=[str(VENV / "bin" / "python"), "-m", *arguments],
            environment=self._environment,
            directory=HERE,
            stop_timeout=60,
        )
        logs = self._data / "logs"
        return Supervised(command, is_ready, record=self._record, logs=logs, say=_say)

    async def _worker_is_ready(self) -> bool:
        return self._ready_file.exists()


def _environment(variant: str, instance: Instance, ready_file: Path) -> Mapping[str, str]:
    ours = ("FLORIN_", "PEER_", "PYTHON")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "PEER_DATABASE_URL": instance.database_url.replace("postgresql:", "postgresql+psycopg:"),
        "PEER_BROKER_URL": instance.amqp_url,
        "PEER_DATA_ACCESS": variant,
        "PEER_GATEWAY_LATENCY_MIN": SETTINGS["FLORIN_SANDBOX_LATENCY_MIN"],
        "PEER_GATEWAY_LATENCY_MAX": SETTINGS["FLORIN_SANDBOX_LATENCY_MAX"],
        "PEER_READY_FILE": str(ready_file),
        "PYTHONUNBUFFERED": "1",
    }


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    return is_ready


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(variant: str, directory: str) -> int:
    """Run until SIGTERM; returns the exit status."""
    failures = []
    try:
        asyncio.run(_Up(variant, Path(directory)).run())
    except* FlorinError as group:
        failures = [str(error) for error in group.exceptions]
    if failures:
        print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
