"""Folds arrivals into sums, in pieces: a long statement would hold up every other."""

from typing import Final

from services.processor.store.arrivals import Place, fold_arrivals
from shared.db import Database

FOLD_ABOVE: Final = 8
"""Arrivals in one state that are not worth folding. The fewer are left, the sooner all are gone
over again, and the less there is to sum up for whoever asks how many."""
PIECE: Final = 250
"""Arrivals looked at by one statement: a millisecond or two."""


class Folder:
    """Goes over all arrivals, again and again."""

    def __init__(
        self, database: Database, *, fold_above: int = FOLD_ABOVE, piece: int = PIECE
    ) -> None:
        self._database = database
        self._fold_above = fold_above
        self._piece = piece
        self._start = Place()

    async def fold_once(self) -> bool:
        """Look at the next piece; returns whether there are more before all were looked at."""
        after = await fold_arrivals(
            self._database, start=self._start, at_most=self._piece, more_than=self._fold_above
        )
        self._start = after or Place()
        return after is not None
