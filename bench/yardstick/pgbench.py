"""Runs pgbench, which comes with Postgres, with one payment's statements."""

import asyncio
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from deploy.local.binaries import find_postgres
from shared.errors import Misconfigured

SCRIPT: Final = Path(__file__).parent / "payment.sql"
CLIENTS: Final = 10


async def run_pgbench(database_url: str, seconds: float) -> float:
    """Payments a second, by ten clients, each with one payment at a time. The database has Florin's
    schema and the accounts of a measurement.

    Raises Misconfigured with what pgbench said.
    """
    directory = find_postgres()
    # A directory of links leads to the one that has them all.
    pgbench = directory and (directory / "postgres").resolve().parent / "pgbench"
    if pgbench is None or not pgbench.exists():
        raise Misconfigured("there is no pgbench beside Postgres: install Postgres's own package")
    parts = urlsplit(database_url)
    process = await asyncio.create_subprocess_exec(
        str(pgbench), "--no-vacuum", "--protocol=prepared", f"--file={SCRIPT}",
        f"--client={CLIENTS}", f"--time={max(1, round(seconds))}", f"--host={parts.hostname}",
        f"--port={parts.port}", f"--username={parts.username}", parts.path.lstrip("/"),
        env={**os.environ, "PGPASSWORD": parts.password or ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    said = output.decode()
    found = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    if process.returncode or found is None or "aborted" in said:
        raise Misconfigured(f"pgbench failed: {said[-600:]}")
    return float(found[1])
