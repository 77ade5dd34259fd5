"""Background work: in pieces, with rests between them, until it is told to stop."""

import asyncio
import time

from shared.repeat import REST, Repeating


async def test_work_in_pieces_goes_on_until_there_are_no_more() -> None:
    pieces, over = [True, True, False], asyncio.Event()

    async def once() -> bool:
        there_is_more = pieces.pop(0)
        if not there_is_more:
            over.set()
        return there_is_more

    repeating = Repeating("test", once, interval=1000)
    running = asyncio.create_task(repeating.run())
    async with asyncio.timeout(5):
        await over.wait()
        repeating.stop()
        await running
    assert pieces == []


async def test_a_piece_is_followed_by_a_rest_many_times_as_long() -> None:
    began: list[float] = []
    took = 0.02

    async def once() -> bool:
        began.append(time.monotonic())
        await asyncio.sleep(took)
        if len(began) == 2:
            repeating.stop()
        return True

    repeating = Repeating("test", once, interval=1000)
    async with asyncio.timeout(5):
        await repeating.run()
    assert began[1] - began[0] > took * REST


async def test_a_rest_is_not_longer_than_the_interval() -> None:
    calls = 0

    async def once() -> bool:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.6 if calls == 1 else 0)  # a rest of five seconds would follow
        if calls == 2:
            repeating.stop()
        return True

    repeating = Repeating("test", once, interval=0.01)
    async with asyncio.timeout(5):
        await repeating.run()
    assert calls == 2
