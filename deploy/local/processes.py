"""Child processes that leave no trace: recorded at start, stopped in order, found when orphaned.

The record holds each process's id and start time, so that a process which merely inherited the
number is never mistaken for ours.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.binaries import Say

LOG_LIMIT: Final = 50 * 1024 * 1024
_TICKS_FIELD: Final = 19  # starttime, counted after the command's closing parenthesis


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and how to ask it to stop."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    executable: Path | None = None
    """The program, where argument zero is a name for `ps` to show."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 30.0


class Record:
    """Which processes belong to a data directory, kept on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, pid: int, stop_signal: int) -> None:
        """Note a process that was just started."""
        known = self._read()
        known[name] = {"pid": pid, "started": started_at(pid), "signal": stop_signal}
        self._write(known)

    def remove(self, name: str) -> None:
        """Forget a process that ended."""
        known = self._read()
        if known.pop(name, None) is not None:
            self._write(known)

    def stop_orphans(self, say: Say) -> None:
        """End what an `up` that was killed has left running."""
        known = self._read()
        alive = {name: entry for name, entry in known.items() if _is_same(entry)}
        for name in reversed(list(alive)):
            entry = alive[name]
            say(f"stopping {name} (pid {entry['pid']}), left over from a run that was killed")
            _end(entry)
        self._write({})

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            found: dict[str, dict[str, int]] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _write(self, known: Mapping[str, Mapping[str, int]]) -> None:
        draft = self._path.with_suffix(".new")
        # A full disk must not keep a process from being watched; it then could not be found when
        # orphaned, which is the lesser evil.
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(known))
            draft.replace(self._path)


def started_at(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[_TICKS_FIELD])


def _is_same(entry: Mapping[str, int]) -> bool:
    started = started_at(entry["pid"])
    return started != 0 and started == entry["started"]


def _end(entry: Mapping[str, int], patience: float = 30.0) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(entry["pid"], entry["signal"])
        deadline = time.monotonic() + patience
        while _is_same(entry) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _is_same(entry):
            os.kill(entry["pid"], signal.SIGKILL)


class Child:
    """One running child process."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask it to stop, wait, and only then make it."""
        if not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self.command.stop_signal)
        try:
            async with asyncio.timeout(self.command.stop_timeout):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def take_turns() -> None:
    """Have this process and all that it starts from now on interrupt nobody when they wake.

    Twenty processes on two cores that preempt each other find their caches cold each time
    (docs/performance.md). SCHED_BATCH, sched(7): whoever runs goes on until it waits for something
    or its turn is over.
    """
    with contextlib.suppress(OSError):  # not allowed here: as it was
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def start(command: Command, record: Record, log_file: Path) -> Child:
    """Start `command` in a session of its own, so that a terminal's Ctrl-C does not reach it.

    It takes turns, and so does the caller from now on: what it starts at once must inherit that.
    """
    take_turns()
    trim(log_file)
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            executable=command.executable,
            env=dict(command.environment),
            cwd=command.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    record.add(command.name, process.pid, command.stop_signal)
    return Child(command, process)


def trim(log_file: Path, limit: int = LOG_LIMIT) -> None:
    """Keep a log that has grown beyond `limit` bytes as `.log.old`, and begin it anew.

    Whoever writes to it goes on: it was opened for appending.
    """
    with contextlib.suppress(OSError):
        if log_file.stat().st_size > limit:
            shutil.copyfile(log_file, log_file.with_suffix(".log.old"))
            os.truncate(log_file, 0)


def tail(log_file: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log_file.stat().st_size - 8192))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
