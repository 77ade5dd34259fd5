"""What Postgres adds to its tables is on disk soon, not half a minute later and all at once."""

import ctypes
import os
from pathlib import Path

import pytest

from shared.db import Database
from tests.backends import choose
from tests.system import eventually

_CACHESTAT = 451
"""The number of cachestat(2) on every architecture; Linux has it since 6.5."""


class Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class Pages(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def unwritten(path: Path) -> int:
    """The pages of a file that the kernel has not begun to write, or is writing."""
    file = os.open(path, os.O_RDONLY)
    pages = Pages()
    try:
        whole = Range(0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_CACHESTAT, file, ctypes.byref(whole), ctypes.byref(pages), 0):
            pytest.skip(f"no cachestat here: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(file)
    return int(pages.dirty + pages.writeback)


async def test_what_is_added_to_a_table_is_soon_on_disk(
    database: Database, request: pytest.FixtureRequest
) -> None:
    if choose(request.config.getoption("--backend")) != "local":
        pytest.skip("this Postgres is not a private one")
    await database.execute(
        "CREATE TABLE ballast AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 20000)"
    )
    name = await database.fetchval("SELECT pg_relation_filepath('ballast')")
    path = Path(await database.fetchval("SHOW data_directory")) / name

    async def is_written() -> bool:
        return unwritten(path) == 0

    await eventually(is_written, timeout=15)
