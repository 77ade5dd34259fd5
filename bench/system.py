"""A private system for one measurement: `./florin up` in a directory of its own."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop

from deploy.local.instance import read
from deploy.local.processes import take_turns
from shared.errors import Misconfigured

T = TypeVar("T")

ROOT: Final = Path(__file__).parent.parent
START_TIMEOUT: Final = 300.0
"""Seconds; the first start on a machine may install Postgres and RabbitMQ."""
SETTINGS: Final = {
    "FLORIN_RATE_LIMIT": "1000000",
    "FLORIN_RATE_BURST": "1000000",
    "FLORIN_SANDBOX_LATENCY_MIN": "0",
    "FLORIN_SANDBOX_LATENCY_MAX": "0.02",
}
"""What a measurement changes: one client may send all, and the gateway answers fast."""


def inherited() -> dict[str, str]:
    """The environment of a system for a measurement: this one's, but for Florin's settings."""
    return {name: text for name, text in os.environ.items() if not name.startswith("FLORIN_")}


@dataclass(frozen=True, slots=True)
class System:
    """A running system."""

    url: str
    database_url: str | None
    key: str
    """An account's; the default account's in a private system."""
    pid: int | None
    """Of `./florin up`, whose children are the system; None when it is not ours."""


def run_to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. SIGTERM ends it as Ctrl-C does, with the systems that it started.

    The load takes turns with them: clients are elsewhere, and interrupt no service.
    """
    take_turns()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return uvloop.run(work)


@contextlib.asynccontextmanager
async def private_system() -> AsyncIterator[System]:
    """The system, for the length of the block. No setting of the caller's reaches it: it must not
    be another's database that is measured.

    Raises Misconfigured with what it said when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="florin-bench-") as directory:
        data = Path(directory)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", "up", "--quiet", "--port", "0", "--data", directory,
            cwd=ROOT,
            env=inherited() | SETTINGS,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with asyncio.timeout(START_TIMEOUT):
                said = (await process.stdout.readline()).decode().strip()
            if not said.startswith("http"):
                rest = (await process.stdout.read()).decode()
                raise Misconfigured(f"the system did not start: {said}\n{rest}".rstrip())
            instance = read(data)
            assert instance is not None  # noqa: S101 - it runs
            yield System(said, instance.database_url, instance.api_key, process.pid)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
