"""What the supervisor does when the machine is not kind."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.processes import Command, Record, trim
from deploy.local.supervisor import Supervised
from shared.errors import Misconfigured
from tests.system import ROOT, eventually


async def always() -> bool:
    return True


def supervised(tmp_path: Path, *arguments: str) -> Supervised:
    command = Command("sleeper", arguments, dict(os.environ), tmp_path, stop_timeout=5)
    record = Record(tmp_path / "processes.json")
    return Supervised(command, always, record=record, logs=tmp_path, say=lambda _: None)


async def test_a_stop_during_the_start_stops_what_is_being_started(tmp_path: Path) -> None:
    process = supervised(tmp_path, "sleep", "600")
    starting = asyncio.create_task(process.start(10))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await process.stop()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert process.pid is None


async def test_what_is_started_interrupts_nobody(tmp_path: Path) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    process = supervised(tmp_path, "sleep", "600")
    await process.start(10)
    assert process.pid is not None
    assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
    await process.stop()


async def test_a_program_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    process = supervised(tmp_path, "/no/such/program")
    with pytest.raises(Misconfigured, match=r"could not be started.*No such file"):
        await process.start(20)
    await process.stop()


async def test_a_record_that_cannot_be_written_keeps_nobody_from_being_watched(
    tmp_path: Path,
) -> None:
    process = supervised(tmp_path, "sleep", "600")
    (tmp_path / "processes.new").mkdir()  # where the record is drafted: no write succeeds
    await process.start(10)
    first = process.pid
    assert first is not None
    os.kill(first, 9)

    async def is_replaced() -> bool:
        return process.pid not in (None, first)

    await eventually(is_replaced)
    await process.stop()


def test_a_log_that_grows_is_kept_once_and_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 100)
        writer.flush()
        trim(log, limit=1000)
        assert log.stat().st_size == 100
        trim(log, limit=50)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "api.log.old").read_bytes() == b"x" * 100


@pytest.mark.parametrize("damage", ["dangling", "emptied", "other version"])
def test_the_launcher_mends_an_environment_that_was_broken(damage: str, tmp_path: Path) -> None:
    """With pip and the command line replaced by words, so that nothing is downloaded."""
    shutil.copy(ROOT / "florin", tmp_path)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__main__.py").write_text("print('it runs')")

    def run() -> str:
        done = subprocess.run(
            [tmp_path / "florin", "up"],
            capture_output=True,
            text=True,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "it runs\n"
        return done.stderr

    assert "installing requirements.txt" in run()
    assert run() == "", "installed once"
    python = tmp_path / ".venv" / "bin" / "python"
    match damage:
        case "dangling":
            python.unlink()
            python.symlink_to("/no/such/python")
        case "emptied":
            shutil.rmtree(tmp_path / ".venv" / "bin")
        case "other version":
            stamp = tmp_path / ".venv" / "installed-requirements.txt"
            stamp.write_text(stamp.read_text().replace("Python 3.", "Python 2."))
    assert "installing requirements.txt" in run()
    assert run() == ""
