"""Has the kernel write a private Postgres' tables early, and a little at a time.

What Postgres adds to its tables lies in the kernel's page cache until it is half a minute old. Then
the kernel writes all of it at once, hundreds of megabytes on a busy day, and every commit waits
behind that (ADR 22).
"""

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two times."""
_FIRST_OF_OURS: Final = 16384
"""Databases with lower numbers are Postgres' own (its FirstNormalObjectId): nothing is added."""
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and wait for nothing

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_libc, "sync_file_range", None)  # Linux alone has it
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Writeback:
    """The tables of the cluster at `directory`, and when each was last written to."""

    def __init__(self, directory: Path) -> None:
        self._databases = directory / "base"
        self._changed_at: dict[str, int] = {}

    async def write(self) -> None:
        """Begin to write to disk what was changed since the last time."""
        await asyncio.to_thread(self._begin)

    def _begin(self) -> None:
        # Any of it may be gone at any moment. How the writing ends is nobody's business here: what
        # fails, Postgres hears from its own fsync.
        with contextlib.suppress(OSError):
            for database in os.scandir(self._databases):
                if database.name.isdigit() and int(database.name) >= _FIRST_OF_OURS:
                    self._begin_database(database)

    def _begin_database(self, database: os.DirEntry[str]) -> None:
        with contextlib.suppress(OSError):
            for file in os.scandir(database):
                with contextlib.suppress(OSError):
                    self._begin_file(file)

    def _begin_file(self, file: os.DirEntry[str]) -> None:
        changed_at = file.stat().st_mtime_ns
        if self._changed_at.get(file.path) == changed_at or _sync_file_range is None:
            return
        self._changed_at[file.path] = changed_at
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _sync_file_range(descriptor, 0, 0, _WRITE)
        finally:
            os.close(descriptor)
