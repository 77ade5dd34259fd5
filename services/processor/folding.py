"""Folds the changes of counts into sums, in pieces: a long statement would hold up every other."""

from typing import Final

from services.processor.store.counts import CountKey, fold_counts
from shared.db import Database

FOLD_ABOVE: Final = 50
"""Changes of one count that are not worth folding."""
PIECE: Final = 250
"""Changes looked at by one statement: a millisecond or two."""


class Folder:
    """Goes over all counts, again and again."""

    def __init__(
        self, database: Database, *, fold_above: int = FOLD_ABOVE, piece: int = PIECE
    ) -> None:
        self._database = database
        self._fold_above = fold_above
        self._piece = piece
        self._start = CountKey()

    async def fold_once(self) -> bool:
        """Look at the next piece; returns whether there are more before all were looked at."""
        after = await fold_counts(
            self._database, start=self._start, at_most=self._piece, more_than=self._fold_above
        )
        self._start = after or CountKey()
        return after is not None
