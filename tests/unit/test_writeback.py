"""A round of writing early: what changed, each file at a moment of its own."""

import time
from itertools import pairwise
from pathlib import Path

from deploy.local.writeback import Writeback

FILES = 5
ROUND = 0.25


class Began:
    """A cluster's files, five of ours and one of Postgres' own; which were begun, and when."""

    def __init__(self, directory: Path) -> None:
        for database, number in (("16384", FILES), ("1", 1)):
            (directory / "base" / database).mkdir(parents=True)
            for name in range(number):
                (directory / "base" / database / str(name)).write_text("x")
        self.names: list[str] = []
        self.times: list[float] = []

    def begin(self, file: str) -> None:
        self.names.append(Path(file).name)
        self.times.append(time.monotonic())


async def test_files_are_written_one_after_the_other_all_through_a_round(tmp_path: Path) -> None:
    began = Began(tmp_path)
    await Writeback(tmp_path, begin=began.begin, round_lasts=ROUND).write()
    assert sorted(began.names) == [str(name) for name in range(FILES)]
    assert began.times[-1] - began.times[0] > ROUND / FILES * (FILES - 1.5)
    assert min(after - before for before, after in pairwise(began.times)) > ROUND / FILES / 2


async def test_what_has_not_changed_is_left_alone(tmp_path: Path) -> None:
    began = Began(tmp_path)
    early = Writeback(tmp_path, begin=began.begin, round_lasts=ROUND)
    await early.write()
    began.names.clear()
    (tmp_path / "base" / "16384" / "3").write_text("and more")
    since = time.monotonic()
    await early.write()
    assert began.names == ["3"]
    await early.write()
    assert len(began.names) == 1
    assert time.monotonic() - since > 1.5 * ROUND, "a round takes its time, whatever there is"
