"""The peer for one measurement, in a directory of its own: `private_system` of another make."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal

from bench.peer.environment import make_environment
from bench.system import ROOT, START_TIMEOUT, System, inherited
from deploy.local.binaries import Say
from deploy.local.instance import read
from deploy.local.processes import Record
from shared.errors import Misconfigured

Variant = Literal["orm", "core"]
VARIANTS: Final[tuple[Variant, ...]] = ("orm", "core")
"""Data access by SQLAlchemy's ORM, or by its Core."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def peer_system(variant: Variant, say: Say = _say) -> AsyncIterator[System]:
    """The peer, for the length of the block; its environment is made first, where it is not there,
    and `say` hears of it.

    Raises Misconfigured with what it said when it does not start.
    """
    await asyncio.to_thread(make_environment, say)
    with tempfile.TemporaryDirectory(prefix="florin-peer-") as directory:
        data = Path(directory)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.peer.up", variant, directory,
            cwd=ROOT,
            env=inherited(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            said = ""
            async with asyncio.timeout(START_TIMEOUT):
                while line := (await process.stdout.readline()).decode():
                    if line.startswith("http"):
                        break
                    said += line
                else:
                    raise Misconfigured(f"the peer did not start:\n{said}".rstrip())
            instance = read(data)
            assert instance is not None  # noqa: S101 - it runs
            yield System(line.strip(), instance.database_url, instance.api_key, process.pid)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
            # Nothing is left, unless it was killed.
            await asyncio.to_thread(Record(data / "processes.json").stop_orphans, say)
