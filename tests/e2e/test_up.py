"""`./florin up`: one command, everything, and nothing else's."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from deploy.local.ports import free_port
from shared.db import open_database
from tests.chaos.test_backends_away import Up, running_up
from tests.system import eventually, payment_body, post_payments, run_command


def processes_of(data: Path) -> dict[int, str]:
    """Processes whose command line names the data directory, and those under them."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(data) in command and int(entry.name) != os.getpid():
                found[int(entry.name)] = command
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def run_up(data: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """`./florin up` that is expected to end by itself."""
    return await run_command("up", "--data", str(data), *arguments, **environment)


NAMES = ("postgres", "epmd", "rabbitmq", "api", "processor", "notifier")


async def test_the_life_of_a_data_directory(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()

    async with running_up(data, port) as up:
        # Every process can be told by its command line.
        for name in NAMES:
            command = Path(f"/proc/{up.pid_of(name)}/cmdline").read_text()
            assert str(data) in command or f"services.{name}" in command, command

        # No commit of the first minutes waits for a piece of the write-ahead log to be made.
        database = await open_database(up.database_url, service="tests", size=1, wait=10)
        ahead = await database.fetchval(
            "SELECT count(*) FROM pg_ls_waldir() WHERE name > pg_walfile_name(pg_current_wal_lsn())"
        )
        assert ahead > 50
        await database.close()

        # A second run on the same data says that one is running.
        status, output = await run_up(data, "--port", "0")
        assert status == 1
        assert f"one is running on {data} already" in output
        assert up.url in output

        # A service that dies is restarted, and a line says so.
        old = up.pid_of("processor")
        os.kill(old, signal.SIGKILL)

        async def is_replaced() -> bool:
            with contextlib.suppress(KeyError):
                return up.pid_of("processor") != old
            return False

        await eventually(is_replaced)
        [id_], _ = await post_payments(up.url, [payment_body("keeper")])

        pids = [up.pid_of(name) for name in NAMES if name != "processor"]
        up.process.send_signal(signal.SIGINT)
        told, _ = await up.process.communicate()
        assert up.process.returncode == 0
        said = told.decode()
        assert "processor was killed by signal 9; starting it again" in said
        for line in ("API", "key", "sk_", "curl -s", "RabbitMQ", "draining", "stopped"):
            assert line in said
        assert not [pid for pid in pids if is_alive(pid)], "it stopped everything it started"
        assert processes_of(data) == {}

    # The data survives, a killed run leaves orphans, and the next one finds them.
    started = time.monotonic()
    async with running_up(data, port) as up:
        warm_start = time.monotonic() - started
        assert warm_start < 30, "the promise of 15 s is measured on an idle machine"
        assert await settled(up, id_)
        up.process.kill()
        await up.process.wait()
        orphans = [up.pid_of(name) for name in NAMES]
        assert all(is_alive(pid) for pid in orphans)
        async with running_up(data, free_port()) as next_up:
            assert not [pid for pid in orphans if is_alive(pid)]
            assert await settled(next_up, id_)
    assert processes_of(data) == {}


async def settled(up: Up, id_: str) -> bool:
    async with aiohttp.ClientSession(up.url) as session:

        async def is_completed() -> bool:
            async with session.get(f"/api/v1/payments/{id_}") as response:
                payment = (await response.json())["payment"]
                return bool(payment["status"] == "completed")

        return bool(await eventually(is_completed))


async def test_a_port_that_is_taken_is_said_with_the_remedy(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    status, output = await run_up(tmp_path / "data", "--port", str(port))
    server.close()
    assert status == 1
    assert f"port {port} is taken" in output
    assert "--port" in output


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"FLORIN_DATABASE_URL": "postgresql://127.0.0.1/x"}, "set both"),
        (
            {
                "FLORIN_DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/x",
                "FLORIN_AMQP_URL": "amqp://me:secret@127.0.0.1:1/",
            },
            "no Postgres at postgresql://127.0.0.1:1/x",
        ),
    ],
)
async def test_an_error_of_operation_is_a_line_without_secrets(
    environment: dict[str, str], says: str, tmp_path: Path
) -> None:
    status, output = await run_up(tmp_path / "data", "--port", "0", **environment)
    assert status == 1
    assert says in output
    assert "Traceback" not in output
    assert "secret" not in output


async def test_a_place_that_cannot_be_written_is_said_with_the_remedy() -> None:
    status, output = await run_up(Path("/proc/florin"), "--port", "0")
    assert status == 1
    assert "choose another place with --data" in output
