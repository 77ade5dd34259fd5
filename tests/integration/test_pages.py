"""Parts of lists: nothing twice, nothing missing, whichever way they are walked."""

import pytest
from aiohttp.test_utils import make_mocked_request

from services.api.gate import _as_problem
from services.api.store.pages import Span, fetch_merged_page
from services.api.store.payments import list_payments
from shared.db import Database
from shared.errors import Transient
from tests.settling import accept


async def test_a_row_that_two_walks_find_is_shown_once(empty: Database) -> None:
    # As when it became unknown between the walk of what is known and that of what is not.
    made = [item.id for item in await accept(empty, 5)]
    select = "SELECT id FROM payments"
    walks = [(Span(4), dict[str, str](), dict[str, str | None]())] * 2
    rows = await fetch_merged_page(empty, select, "pay", "acct_default", walks)
    assert [row["id"] for row in rows] == made[:0:-1]


@pytest.mark.parametrize("filters", [{}, {"customer": "user123"}, {"currency": "THB"}])
@pytest.mark.parametrize("statuses", [None, ["pending", "processing"]])
async def test_pages_in_both_directions_show_every_row_once(
    filters: dict[str, str], statuses: list[str] | None, empty: Database
) -> None:
    made = [item.id for item in await accept(empty, 23)]
    await accept(empty, 5, currency="JPY", customer="somebody else")
    everything = {"customer": None, "currency": None} | filters
    wanted = made[::-1] if filters else None
    down: list[str] = []
    while True:
        span = Span(5, after=down[-1] if down else None)
        part = await list_payments(
            empty,
            "acct_default",
            span,
            statuses=statuses,
            **everything,
        )
        if not part:
            break
        down += [payment.id for payment in part]
    assert wanted is None or down == wanted
    assert len(down) == len(set(down)) == (23 if filters else 28)
    up: list[str] = [down[-1]]
    while True:
        span = Span(5, before=up[0])
        part = await list_payments(
            empty,
            "acct_default",
            span,
            statuses=statuses,
            **everything,
        )
        if not part:
            break
        up[:0] = [payment.id for payment in part]
    assert up == down


@pytest.mark.parametrize(
    ("method", "headers", "again"),
    [
        ("POST", {}, "false"),
        ("POST", {"Idempotency-Key": "k"}, "true"),
        ("GET", {}, "true"),
    ],
)
def test_an_sdk_is_told_to_repeat_only_what_cannot_be_done_twice(
    method: str, headers: dict[str, str], again: str
) -> None:
    request = make_mocked_request(method, "/v1/charges", headers)
    problem = _as_problem(Transient("away"), request)
    assert (problem.status, problem.headers["Stripe-Should-Retry"]) == (503, again)
