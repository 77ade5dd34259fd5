"""A round of writing early: what changed, each file at a moment of its own."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.local import writeback
from deploy.local.writeback import Writeback

FILES = 5
ROUND = 0.25


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The files that were begun, and when: there are five of ours, and one of Postgres' own."""
    for database, number in (("16384", FILES), ("1", 1)):
        (tmp_path / "base" / database).mkdir(parents=True)
        for name in range(number):
            (tmp_path / "base" / database / str(name)).write_text("x")
    found: list[tuple[str, float]] = []
    monkeypatch.setattr(
        writeback, "_begin", lambda file: found.append((Path(file).name, time.monotonic()))
    )
    monkeypatch.setattr(writeback, "ROUND", ROUND)
    return found


async def test_files_are_written_one_after_the_other_all_through_a_round(
    begun: list[tuple[str, float]], tmp_path: Path
) -> None:
    await Writeback(tmp_path).write()
    assert sorted(name for name, _ in begun) == [str(name) for name in range(FILES)]
    times = [at for _, at in begun]
    assert min(after - before for before, after in pairwise(times)) > ROUND / FILES / 2


async def test_what_has_not_changed_is_left_alone(
    begun: list[tuple[str, float]], tmp_path: Path
) -> None:
    early = Writeback(tmp_path)
    await early.write()
    begun.clear()
    (tmp_path / "base" / "16384" / "3").write_text("and more")
    began = time.monotonic()
    await early.write()
    assert [name for name, _ in begun] == ["3"]
    await early.write()
    assert len(begun) == 1
    assert time.monotonic() - began > 1.5 * ROUND, "a round takes its time, whatever there is"
