"""Whether the peer lost nothing: what `florin verify` is to Florin."""

from typing import Final

from bench.peer.store import RULES, count_payments, find_broken, prepare_to_read_all
from shared.db import open_database
from shared.errors import FlorinError

SHOWN: Final = 3


class Lost(FlorinError):  # noqa: N818 - it says what happened
    """A rule does not hold in the peer's database; the message names it and what breaks it."""


async def check(database_url: str, *, accepted: int) -> None:
    """Raise Lost unless all of the `accepted` payments, and no others, are there and completed,
    with what follows from that. For when all that was accepted is delivered."""
    database = await open_database(database_url, service="bench", size=1, wait=5, patient=True)
    try:
        there = await count_payments(database)
        async with database.transaction() as snapshot:
            await prepare_to_read_all(snapshot)
            found = [(rule, await find_broken(snapshot, rule, SHOWN)) for rule in RULES]
    finally:
        await database.close()
    broken = [f"{rule}: {offending}" for rule, offending in found if offending]
    if there != accepted:
        broken.append(f"{accepted} payments were accepted, {there} are there")
    if broken:
        raise Lost("; ".join(broken))
