"""Folds the changes of counts into sums, in pieces: a long statement would hold up every other."""

import asyncio
from typing import Final

from services.processor.store.counts import CountKey, fold_counts
from shared.db import Database

FOLD_ABOVE: Final = 50
"""Changes of one count that are not worth folding."""
PIECE: Final = 1000
"""Changes looked at by one statement: a few milliseconds."""
BETWEEN_PIECES: Final = 0.02
"""Seconds."""


async def fold_all(database: Database, *, fold_above: int = FOLD_ABOVE, piece: int = PIECE) -> None:
    """Look at all counts once."""
    start: CountKey | None = CountKey()
    while start is not None:
        start = await fold_counts(database, start=start, at_most=piece, more_than=fold_above)
        await asyncio.sleep(BETWEEN_PIECES)
