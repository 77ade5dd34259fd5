"""A data directory belongs to one `up` at a time."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from shared.errors import Misconfigured


@contextlib.contextmanager
def hold(data: Path) -> Iterator["Lock"]:
    """Take `data` for the length of the block. Raises Misconfigured when another run has it."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"cannot write to {data} ({error.strerror}): choose another place with --data"
        ) from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(_already_running(data, os.pread(file, 4096, 0))) from None
        lock = Lock(file)
        lock.note(None)
        yield lock
        lock.clear()
    finally:
        os.close(file)


class Lock:
    """The held lock; its file tells the next `up` who holds it."""

    def __init__(self, file: int) -> None:
        self._file = file

    def note(self, url: str | None) -> None:
        """Say who holds the directory, and where the API answers once it does."""
        text = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def clear(self) -> None:
        """Nobody holds it any more."""
        os.ftruncate(self._file, 0)


def _already_running(data: Path, note: bytes) -> str:
    try:
        holder = json.loads(note)
        who = f"pid {holder['pid']}" + (f", API at {holder['url']}" if holder["url"] else "")
    except (ValueError, KeyError):
        who = "another process"
    return f"one is running on {data} already ({who}). Stop it, or choose another --data"
