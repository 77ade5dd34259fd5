"""Has the kernel write a private Postgres' tables early, and a little at a time.

What Postgres adds to its tables lies in the kernel's page cache until it is half a minute old. Then
the kernel writes all of it at once, hundreds of megabytes on a busy day, and every commit waits
behind that (ADR 22). What a second leaves is tens of megabytes, which would hold up commits for ten
milliseconds: files are written one after the other, all through the second.
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

ROUND: Final = 1.0
"""Seconds in which all files have their turn."""
_FIRST_OF_OURS: Final = 16384
"""Databases with lower numbers are Postgres' own (its FirstNormalObjectId): nothing is added."""
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and wait for nothing

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_libc, "sync_file_range", None)  # Linux alone has it
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_to_write(file: str) -> None:
    """Have the kernel begin to write a file. How that ends is nobody's business here: what fails,
    Postgres hears from its own fsync."""
    if _sync_file_range is None:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _sync_file_range(descriptor, 0, 0, _WRITE)
        finally:
            os.close(descriptor)


class Writeback:
    """The tables of the cluster at `directory`, and when each was last written to."""

    def __init__(
        self,
        directory: Path,
        *,
        begin: Callable[[str], None] = begin_to_write,
        round_lasts: float = ROUND,
    ) -> None:
        self._begin = begin
        self._round_lasts = round_lasts
        self._databases = directory / "base"
        self._changed_at: dict[str, int] = {}

    async def write(self) -> None:
        """Begin to write to disk what was changed since the last time, throughout a round."""
        files = await asyncio.to_thread(self._find_changed)
        for file in files:
            await asyncio.to_thread(self._begin, file)
            await asyncio.sleep(self._round_lasts / len(files))
        if not files:
            await asyncio.sleep(self._round_lasts)

    def _find_changed(self) -> list[str]:
        # Any of it may be gone at any moment.
        files: list[str] = []
        with contextlib.suppress(OSError):
            for database in os.scandir(self._databases):
                if database.name.isdigit() and int(database.name) >= _FIRST_OF_OURS:
                    files += self._find_changed_of(database)
        return files

    def _find_changed_of(self, database: os.DirEntry[str]) -> Iterator[str]:
        with contextlib.suppress(OSError):
            for file in os.scandir(database):
                with contextlib.suppress(OSError):
                    changed_at = file.stat().st_mtime_ns
                    if self._changed_at.get(file.path) != changed_at:
                        self._changed_at[file.path] = changed_at
                        yield file.path
