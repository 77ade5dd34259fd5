"""A private Postgres: its cluster under the data directory, on a free loopback port."""

from __future__ import annotations  # asyncpg's classes are generic in its stubs alone

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import asyncpg

from deploy.local.instance import Instance
from deploy.local.processes import Command
from shared.errors import Misconfigured

_WAL_LAID_IN: Final = 64
"""Segments of 16 MiB that a new cluster gets beforehand."""
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "min_wal_size": f"{_WAL_LAID_IN * 16}MB",
    "wal_compression": "on",
    "log_timezone": "UTC",
    # Money: what a 2xx promised survives a power cut. These are the defaults; they are said aloud.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


class PrivatePostgres:
    """The cluster at `directory`, made by `prepare` when it is not there."""

    def __init__(self, binaries: Path, directory: Path, instance: Instance) -> None:
        self._binaries = binaries
        self._directory = directory
        self._instance = instance
        self._as_user = _as_ordinary_user(directory) if os.geteuid() == 0 else []

    def prepare(self) -> None:
        """Make the cluster unless it exists. Raises Misconfigured with initdb's own words."""
        if (self._directory / "PG_VERSION").exists():
            self._check_version()
            return
        password_file = self._directory.parent / "postgres-password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._instance.postgres_password)
        if self._as_user:
            shutil.chown(password_file, *_ordinary_user())
        try:
            done = subprocess.run(
                [
                    *self._as_user,
                    str(self._binaries / "initdb"),
                    f"--pgdata={self._directory}",
                    "--username=florin",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                ],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
        finally:
            password_file.unlink()
        if done.returncode:
            raise Misconfigured(f"initdb failed:\n{done.stderr.strip()}")

    def command(self) -> Command:
        """The server's command; SIGINT is its fast, clean shutdown."""
        settings = {
            **_SETTINGS,
            "port": str(self._instance.postgres_port),
            # Shown in the title of every process that Postgres starts.
            "cluster_name": str(self._directory)[-60:],
        }
        return Command(
            name="postgres",
            arguments=[
                *self._as_user,
                str(self._binaries / "postgres"),
                "-D",
                str(self._directory),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            environment={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            directory=Path("/"),
            stop_signal=signal.SIGINT,
        )

    async def is_ready(self) -> bool:
        """Whether it takes connections now."""
        try:
            connection = await self._connect()
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True

    async def make_database(self) -> None:
        """Make Florin's database in a running server, when it is not there."""
        connection = await self._connect()
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = 'florin'"):
                await _lay_in_wal(connection)
                await connection.execute("CREATE DATABASE florin")
        finally:
            await connection.close()

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self._instance.database_url_of("postgres"), timeout=2)

    def _check_version(self) -> None:
        made_by = (self._directory / "PG_VERSION").read_text().strip()
        found = subprocess.run(
            [self._binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
        if f") {made_by}." not in found and f") {made_by}\n" not in found:
            raise Misconfigured(
                f"{self._directory} was made by Postgres {made_by}, but this machine has"
                f" {found.strip()}: install postgresql-{made_by}, or move the data with pg_dump"
            )


async def _lay_in_wal(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Have the first gigabyte of the write-ahead log written beforehand.

    Postgres fills a new segment with zeros at the moment at which it is needed, and every commit
    waits for it: 80 ms each on a busy machine. Later, checkpoints give old segments a new name.
    """
    for _ in range(_WAL_LAID_IN):
        # What was switched away from without a record in it would be gone on with.
        await connection.execute("SELECT pg_logical_emit_message(false, 'florin', 'laid in')")
        await connection.execute("SELECT pg_switch_wal()")
    await connection.execute("CHECKPOINT")


def _ordinary_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise Misconfigured(
        "Postgres refuses to run as root, and there is neither a user `postgres` nor `nobody`:"
        " run `./florin up` as an ordinary user"
    )


def _as_ordinary_user(directory: Path) -> list[str]:
    """Words to put before a command, when root starts Postgres, which refuses to run as root.

    The directory becomes that user's. Where a parent is closed to others, as /root is, the process
    is lent the one capability that lets it pass.
    """
    uid, gid = _ordinary_user()
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
    directory.chmod(0o700)
    plain = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    for capability in (None, "dac_read_search", "dac_override"):
        lent = [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"] if capability else []
        attempt = [*plain, *lent]
        # Not `test -r`: access(2) disregards capabilities.
        if not subprocess.run(
            [*attempt, "ls", str(directory)], capture_output=True, check=False
        ).returncode:
            return attempt
    raise Misconfigured(
        f"the user that runs Postgres cannot reach {directory}: choose a place that others may"
        " enter, such as `--data /var/lib/florin`, or run as an ordinary user"
    )
