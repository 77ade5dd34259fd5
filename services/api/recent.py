"""What was answered lately, so that a repeated key often costs no question to the database.

Only what is committed and can never change is remembered; the unique index decides the rest.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The last `size` things that were put here, by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        # A plain dict walks over all it has forgotten to find its oldest.
        self._known: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> V | None:
        """What was put under `key`, if it is remembered."""
        return self._known.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember `value`; the oldest is forgotten."""
        self._known[key] = value
        if len(self._known) > self._size:
            self._known.popitem(last=False)
