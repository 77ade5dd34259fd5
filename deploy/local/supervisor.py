"""Keeps processes running: restarts what dies, with backoff and a line that says so."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import random
from typing import Final

from deploy.local.binaries import Say
from deploy.local.processes import Child, Command, Record, start, tail, trim
from shared.backoff import exponential
from shared.errors import Misconfigured

STEADY: Final = 30.0
"""Seconds after which a process that dies is not counted as failing again."""
LOG_CHECK: Final = 60.0
"""Seconds between looks at how large a log has grown."""
_TRIES_AT_START: Final = 3
_PROBE_INTERVAL: Final = 0.1


class Supervised:
    """One process that is to run until it is told to stop."""

    def __init__(
        self,
        command: Command,
        is_ready: Callable[[], Awaitable[bool]],
        *,
        record: Record,
        logs: Path,
        say: Say,
    ) -> None:
        self.name = command.name
        self.state = "waiting"
        self.log_file = logs / f"{command.name}.log"
        self._command = command
        self._is_ready = is_ready
        self._record = record
        self._say = say
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._failures = 0
        self.last_end = ""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child and self._child.is_running else None

    async def start(self, timeout: float) -> None:
        """Start it and wait until it is ready.

        Raises Misconfigured, with the end of its log, when it dies repeatedly or takes longer.
        """
        self.state = "starting"
        self._keeper = asyncio.create_task(self._keep())
        deadline = time.monotonic() + timeout
        while not (self.pid and await self._is_ready()):
            if self._failures >= _TRIES_AT_START:
                raise Misconfigured(self._obituary(f"{self.last_end}, again and again"))
            if time.monotonic() > deadline:
                raise Misconfigured(self._obituary(f"was not ready within {timeout:g} s"))
            await asyncio.sleep(_PROBE_INTERVAL)
        self.state = "ready"

    async def stop(self) -> None:
        """Stop it for good, in its own time."""
        self._stopping.set()
        if self._child is not None and self._child.is_running:
            self.state = "stopping"
            await self._child.stop()
        if self._keeper is not None:
            await self._keeper
        self.state = "stopped"

    async def refresh(self) -> str:
        """Look whether it is ready, and return its state."""
        if self.pid and not self._stopping.is_set():
            self.state = "ready" if await self._is_ready() else "not ready"
        return self.state

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._child = await start(self._command, self._record, self.log_file)
                how = await self._live(self._child)
            except OSError as error:  # no such program, a full disk, no more processes
                how = f"could not be started ({error})"
            if self._stopping.is_set():
                return
            self._failures = 1 if time.monotonic() - began > STEADY else self._failures + 1
            pause = exponential(self._failures, base=0.5, cap=15, rand=random())  # noqa: S311
            self.state = "restarting"
            self.last_end = how
            self._say(f"{self.name} {how}; starting it again in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _live(self, child: Child) -> str:
        """Watch a process until it ends; returns how it did."""
        if self._stopping.is_set():  # it was told to stop while it was being started
            await child.stop()
        while child.is_running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOG_CHECK):
                    await child.wait()
            await asyncio.to_thread(trim, self.log_file)
        status = await child.wait()
        self._record.remove(self.name)
        if status < 0:
            return f"was killed by signal {-status}"
        return f"ended with status {status}"

    def _obituary(self, what: str) -> str:
        return f"{self.name} {what}; the end of {self.log_file}:\n{tail(self.log_file)}"
