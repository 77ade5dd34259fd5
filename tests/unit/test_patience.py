"""A call is repeated while its errors may pass, and no longer than it is worth."""

import pytest
from structlog.testing import capture_logs

from shared.errors import Permanent, Transient
from shared.patience import persist, try_for


class Failing:
    """A call that fails with these errors, one after another, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, answer: str) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return answer


async def test_what_succeeds_is_called_once_and_not_spoken_of() -> None:
    call = Failing()
    with capture_logs() as logs:
        assert await persist(call, "done") == "done"
    assert (call.calls, logs) == (1, [])


async def test_what_may_pass_is_waited_for_and_each_try_is_logged() -> None:
    call = Failing(*(Transient(f"away {n}") for n in (1, 2, 3)))
    with capture_logs() as logs:
        assert await persist(call, "done") == "done"
    assert call.calls == 4
    assert [(log["attempt"], log["reason"]) for log in logs] == [
        (1, "away 1"),
        (2, "away 2"),
        (3, "away 3"),
    ]


async def test_what_will_not_pass_is_not_repeated() -> None:
    for patient in (persist, lambda call, answer: try_for(60, call, answer)):
        call = Failing(Permanent("a bad row"))
        with pytest.raises(Permanent, match="a bad row"):
            await patient(call, "done")
        assert call.calls == 1


async def test_patience_ends_with_the_error_that_it_waited_out() -> None:
    call = Failing(*(Transient(f"away {n}") for n in range(1000)))
    with pytest.raises(Transient, match="away"):
        await try_for(0.2, call, "done")
    assert call.calls >= 2
