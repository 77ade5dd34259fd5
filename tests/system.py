"""The three services as real processes, and a client to use them with."""

import asyncio
import contextlib
import itertools
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from deploy.local.ports import free_port
from deploy.local.processes import Command, Record
from deploy.local.supervisor import Supervised

ROOT = Path(__file__).parent.parent
SEALING_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
RETRY_DELAYS = (0.25, 0.5, 1.0)
SETTINGS = {
    "FLORIN_AUTH": "local",
    "FLORIN_SEALING_KEYS": SEALING_KEY,
    "FLORIN_RATE_LIMIT": "1000000",
    "FLORIN_RATE_BURST": "1000000",
    "FLORIN_SANDBOX_LATENCY_MIN": "0",
    "FLORIN_SANDBOX_LATENCY_MAX": "0.02",
    "FLORIN_GATEWAY_TIMEOUT": "1",
    "FLORIN_ASK_AGAIN_MIN": "0.2",
    "FLORIN_JANITOR_INTERVAL": "0.2",
    "FLORIN_NOTIFIER_SWEEP_INTERVAL": "0.2",
    "FLORIN_LOST_AFTER": "3",
    "FLORIN_WEBHOOK_TIMEOUT": "2",
    "FLORIN_WEBHOOK_RETRY_DELAYS": ",".join(f"{round(d * 1000)}ms" for d in RETRY_DELAYS),
    "FLORIN_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
}


@dataclass(frozen=True, slots=True)
class Urls:
    """A database and a virtual host."""

    database: str
    amqp: str


class System:
    """The services, by name, each kept running by the supervisor."""

    def __init__(
        self,
        urls: Urls,
        directory: Path,
        commands: Mapping[str, list[str]] | None = None,
        **settings: str,
    ) -> None:
        """`commands` take the place of those that run a service, by its name."""
        self._commands = commands or {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._urls = urls
        self._directory = directory
        self._settings = settings
        self._record = Record(directory / "processes.json")
        self.said: list[str] = []
        self.services = {name: self._service(name) for name in ("api", "processor", "notifier")}

    async def start(self) -> None:
        """Start all three."""
        await asyncio.gather(*(service.start(30) for service in self.services.values()))

    async def stop(self) -> None:
        """Drain and stop all three, against the stream."""
        for service in self.services.values():
            await service.stop()

    def kill(self, name: str, signal: int) -> int:
        """Send a signal to a service; returns its process id."""
        pid = self.services[name].pid
        assert pid is not None, f"{name} does not run"
        os.kill(pid, signal)
        return pid

    async def wait_for_restart(self, name: str, old_pid: int) -> None:
        """Wait until the supervisor has replaced a killed process by one that is ready."""
        service = self.services[name]

        async def is_back() -> bool:
            return service.pid not in (None, old_pid) and await service.refresh() == "ready"

        await eventually(is_back)

    def _service(self, name: str) -> Supervised:
        probe_port = self.port if name == "api" else free_port()
        environment = {
            **os.environ,
            **SETTINGS,
            **self._settings,
            "FLORIN_DATABASE_URL": self._urls.database,
            "FLORIN_AMQP_URL": self._urls.amqp,
            "FLORIN_API_PORT": str(self.port),
            "FLORIN_PROBE_PORT": str(probe_port),
        }
        arguments = self._commands.get(name, [sys.executable, "-m", f"services.{name}"])
        command = Command(name, arguments, environment, ROOT)
        return Supervised(
            command,
            lambda: _is_ready(f"http://127.0.0.1:{probe_port}/ready"),
            record=self._record,
            logs=self._directory,
            say=self.said.append,
        )


async def _is_ready(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as found:
            return found.status == 200
    except aiohttp.ClientError:
        return False


async def eventually(
    condition: Callable[[], Awaitable[Any]], timeout: float = 30, interval: float = 0.05
) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + timeout
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout} s: {condition}"
        await asyncio.sleep(interval)


def payment_body(user: str, amount: Any = 100.50, currency: str = "THB") -> dict[str, Any]:
    """A body for POST /payments."""
    return {"user_id": user, "amount": amount, "currency": currency}


async def post_payments(
    url: str, bodies: Iterable[dict[str, Any]], *, connections: int = 100
) -> tuple[list[str], list[int]]:
    """Post each body once, over some connections. Returns the accepted ids and other statuses.

    A request whose answer is lost counts as status 0: it may have been accepted or not.
    """
    accepted: list[str] = []
    others: list[int] = []
    waiting = iter(bodies)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(url, connector=connector) as session:

        async def worker() -> None:
            for body in waiting:
                try:
                    async with session.post(
                        "/api/v1/payments", json=body, headers={"X-User-ID": body["user_id"]}
                    ) as response:
                        if response.status == 202:
                            accepted.append((await response.json())["payment_id"])
                        else:
                            others.append(response.status)
                except (aiohttp.ClientError, OSError):
                    others.append(0)
                    await asyncio.sleep(0.02)  # the server is away: do not spin

        await asyncio.gather(*(worker() for _ in range(connections)))
    return accepted, others


class Load:
    """Payments posted steadily until stopped, by a client that tries again when it hears nothing.

    Each payment has an Idempotency-Key, so that trying again is safe.
    """

    def __init__(self, url: str, workers: int = 20, pause: float = 0.02) -> None:
        self._url = url
        self._workers = workers
        self._pause = pause
        self._stopping = False
        self._name = uuid.uuid4().hex[:8]
        self.accepted: dict[str, str] = {}
        """Ids of accepted payments by idempotency key."""
        self.refused: list[int] = []
        """Statuses of answers that were not 202."""

    async def more(self, count: int) -> None:
        """Wait until `count` more payments than now are accepted."""
        target = len(self.accepted) + count

        async def reached() -> bool:
            return len(self.accepted) >= target

        await eventually(reached, 60)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Post during the block; afterwards every payment begun has had its 202."""
        async with aiohttp.ClientSession(self._url) as session:
            workers = [asyncio.create_task(self._work(session, n)) for n in range(self._workers)]
            try:
                yield self
            finally:
                self._stopping = True
                await asyncio.gather(*workers)

    async def _work(self, session: aiohttp.ClientSession, worker: int) -> None:
        for count in itertools.count():
            if self._stopping:
                return
            key = f"{self._name}-{worker}-{count}"
            accepted = False
            while not accepted:
                accepted = await self._post(session, key)
                await asyncio.sleep(self._pause)

    async def _post(self, session: aiohttp.ClientSession, key: str) -> bool:
        headers = {"X-User-ID": key, "Idempotency-Key": key}
        try:
            async with session.post(
                "/api/v1/payments", json=payment_body(key), headers=headers
            ) as response:
                answer = await response.json()
        except (aiohttp.ClientError, OSError):
            return False  # no answer: it may have been accepted or not
        if response.status != 202:
            self.refused.append(response.status)
            return False
        self.accepted[key] = answer["payment_id"]
        return True


async def run_command(*arguments: str, **environment: str) -> tuple[int, str]:
    """A `./florin` command that is expected to end by itself: its exit status and its words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli",
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()
