"""What arrives together is written together, and a bad row fails alone."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batcher import LIST_SPACING, Batcher, Saturated
from shared.errors import Permanent, Transient


async def test_what_arrives_together_is_one_write() -> None:
    writes: list[list[int]] = []

    async def write(items: list[int]) -> list[int]:
        writes.append(items)
        return [item * 2 for item in items]

    batcher = Batcher(write, max_size=100)
    assert await asyncio.gather(*(batcher.submit(n) for n in range(50))) == [
        n * 2 for n in range(50)
    ]
    assert writes == [list(range(50))]


async def test_what_arrives_during_a_write_is_the_next_one() -> None:
    may_finish = asyncio.Event()
    writes: list[list[int]] = []

    async def write(items: list[int]) -> list[int]:
        writes.append(items)
        await may_finish.wait()
        return items

    batcher = Batcher(write, max_size=100)
    first = batcher.submit(0)
    await asyncio.sleep(0)
    rest = [batcher.submit(n) for n in range(1, 5)]
    may_finish.set()
    await asyncio.gather(first, *rest)
    assert writes == [[0], [1, 2, 3, 4]]


async def test_one_after_a_rest_is_written_at_once_and_the_next_ones_together() -> None:
    began: list[tuple[float, int]] = []
    loop = asyncio.get_running_loop()

    async def write(items: list[int]) -> list[int]:
        began.append((loop.time(), len(items)))
        return items

    batcher = Batcher(write, max_size=100, spacing=0.05)
    start = loop.time()
    await batcher.submit(0)
    assert began[0][0] - start < 0.05
    futures = []
    for n in range(1, 5):
        futures.append(batcher.submit(n))
        await asyncio.sleep(0.001)
    await asyncio.gather(*futures)
    assert [size for _, size in began] == [1, 4]
    assert began[1][0] - began[0][0] >= 0.049


async def test_a_list_waits_for_no_spacing_and_takes_along_what_does() -> None:
    writes: list[list[int]] = []

    async def write(items: list[int]) -> list[int]:
        writes.append(items)
        return items

    batcher = Batcher(write, max_size=100, spacing=3600)
    await batcher.submit(0)
    alone = batcher.submit(1)
    async with asyncio.timeout(5):
        await asyncio.gather(alone, batcher.submit_list([2, 3]))
        await asyncio.gather(batcher.submit(4), batcher.submit_list([5]))
    assert writes == [[0], [1, 2, 3], [4, 5]]
    batcher.submit(6)
    for _ in range(10):
        await asyncio.sleep(0)
    assert writes[3:] == [], "what is alone waits again"
    await batcher.drain()


async def test_lists_are_gathered_too_when_they_come_close_together() -> None:
    began: list[float] = []
    loop = asyncio.get_running_loop()

    async def write(items: list[int]) -> list[int]:
        began.append(loop.time())
        return items

    batcher = Batcher(write, max_size=100, spacing=3600, rest=0.0)
    async with asyncio.timeout(5):
        for n in range(4):
            await batcher.submit_list([n])
    # A loop may count whole milliseconds.
    assert min(after - before for before, after in pairwise(began)) > LIST_SPACING - 0.001


async def test_a_list_is_told_of_each_what_came_of_it() -> None:
    class Refused(Permanent):
        pass

    async def write(items: list[int]) -> list[str]:
        if 3 in items:
            raise Refused(str(items))
        return [str(item) for item in items]

    batcher = Batcher(write, max_size=4)
    async with asyncio.timeout(5):
        *told, refused = await batcher.submit_list([1, 2, 4, 5, 6, 3])
        assert told == ["1", "2", "4", "5", "6"], "in their order, over two writes"
        assert isinstance(refused, Refused)
        assert str(refused) == "[3]", "bisected out"
        assert await batcher.submit_list([]) == []


async def test_a_list_that_nobody_waits_for_any_more_is_written_all_the_same() -> None:
    written: list[int] = []

    async def write(items: list[int]) -> list[int]:
        written.extend(items)
        return items

    batcher = Batcher(write, max_size=2, spacing=0.0)
    batcher.submit_list([1, 2, 3]).cancel()
    await batcher.drain()
    assert written == [1, 2, 3]


async def test_a_whole_batch_waits_for_no_spacing() -> None:
    sizes: list[int] = []

    async def write(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    batcher = Batcher(write, max_size=3, spacing=3600)
    await batcher.submit(0)
    async with asyncio.timeout(5):
        await asyncio.gather(*(batcher.submit(n) for n in range(6)))
    assert sizes == [1, 3, 3]


async def test_what_is_submitted_ahead_is_written_before_what_is_not() -> None:
    writes: list[list[str]] = []

    async def write(items: list[str]) -> list[str]:
        writes.append(items)
        return items

    batcher = Batcher(write, max_size=3, spacing=0)
    futures = [batcher.submit(item) for item in ("new 1", "new 2", "new 3", "new 4")]
    futures += [batcher.submit(item, ahead=True) for item in ("begun 1", "begun 2")]
    await asyncio.gather(*futures)
    assert writes == [["begun 1", "begun 2", "new 1"], ["new 2", "new 3", "new 4"]]


async def test_only_whole_batches_are_written_side_by_side() -> None:
    began = asyncio.Semaphore(0)
    may_finish = asyncio.Event()
    writes: list[list[int]] = []

    async def write(items: list[int]) -> list[int]:
        writes.append(items)
        began.release()
        await may_finish.wait()
        return items

    async def assert_no_more_begins() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        assert began.locked()

    batcher = Batcher(write, max_size=3, max_writes=2, spacing=0)
    futures = [batcher.submit(n) for n in range(9)]
    await began.acquire()
    await began.acquire()
    assert writes == [[0, 1, 2], [3, 4, 5]]
    await assert_no_more_begins()  # a third whole batch waits: there are two writes
    may_finish.set()
    assert await asyncio.gather(*futures) == list(range(9))
    await began.acquire()

    may_finish.clear()
    futures = [batcher.submit(n) for n in range(3)]
    await began.acquire()
    futures += [batcher.submit(n) for n in range(3, 5)]
    await assert_no_more_begins()  # what is not whole waits for the one write before
    may_finish.set()
    await asyncio.gather(*futures)
    assert writes[2:] == [[6, 7, 8], [0, 1, 2], [3, 4]]


async def test_a_drain_waits_for_no_spacing() -> None:
    async def write(items: list[int]) -> list[int]:
        return items

    batcher = Batcher(write, max_size=3, spacing=3600)
    await batcher.submit(0)
    late = batcher.submit(1)
    async with asyncio.timeout(5):
        await batcher.drain()
    assert late.result() == 1


@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=5), st.integers(1, 20))
def test_bad_rows_fail_alone(count: int, bad: set[int], max_size: int) -> None:
    async def write(items: list[int]) -> list[int]:
        if bad & set(items):
            raise Permanent("refused")
        return items

    async def main() -> list[object]:
        batcher = Batcher(write, max_size=max_size, spacing=0)
        futures = [batcher.submit(n) for n in range(count)]
        return await asyncio.gather(*futures, return_exceptions=True)

    for n, result in enumerate(asyncio.run(main())):
        assert isinstance(result, Permanent) if n in bad else result == n


async def test_an_outage_is_told_to_all_who_wait() -> None:
    async def write(items: list[int]) -> list[int]:
        raise Transient("away")

    batcher = Batcher(write, max_size=10)
    results = await asyncio.gather(*(batcher.submit(n) for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, Transient) for result in results)


async def test_more_than_may_wait_is_refused_at_the_door() -> None:
    may_finish = asyncio.Event()

    async def write(items: list[int]) -> list[int]:
        await may_finish.wait()
        return items

    batcher = Batcher(write, max_size=1, max_waiting=2)
    futures = [batcher.submit(0)]
    await asyncio.sleep(0)
    futures += [batcher.submit(1), batcher.submit(2)]
    with pytest.raises(Saturated):
        batcher.submit(3)
    may_finish.set()
    assert await asyncio.gather(*futures) == [0, 1, 2]
    await batcher.drain()


async def test_what_arrives_as_the_last_writer_ends_is_not_forgotten() -> None:
    late: list[asyncio.Future[int]] = []
    both_are_in = asyncio.Event()

    def submit_another(_: object) -> None:
        late.append(batcher.submit(2))
        if len(late) == 2:
            both_are_in.set()

    async def write(items: list[int]) -> list[int]:
        return items

    batcher = Batcher(write, max_size=1)
    for first in (batcher.submit(0), batcher.submit(1)):
        # Called in the very iteration in which the writers end.
        first.add_done_callback(submit_another)
    async with asyncio.timeout(1):
        await both_are_in.wait()
        assert await asyncio.gather(*late) == [2, 2]
    await batcher.drain()


@pytest.mark.parametrize("rest", [0.0, 0.5, 1.0])
async def test_a_rest_is_as_long_as_is_said_by_the_write_before(
    rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def write(items: list[int]) -> list[int]:
        nonlocal now
        now += 0.02
        return items

    batcher = Batcher(write, max_size=10, spacing=0.0, rest=rest)
    await batcher.submit(0)
    await batcher.drain()
    assert batcher._next_at == pytest.approx(now + rest * 0.02)
