"""Ids sort by time and do not collide."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import new_id, uuid7_hex

moments = st.integers(0, 2**48 * 1_000_000 - 1)
randoms = st.integers(0, 2**64 - 1)


@given(moments, randoms)
def test_an_id_is_a_uuid_of_version_7(now: int, rand: int) -> None:
    made = uuid.UUID(hex=uuid7_hex(now, rand))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == now // 1_000_000


@given(moments, moments, randoms, randoms)
def test_a_later_id_sorts_later(one: int, other: int, rand: int, other_rand: int) -> None:
    earlier, later = sorted((one, other))
    if later - earlier >= 1000:  # the fraction of a millisecond resolves about 244 ns
        assert uuid7_hex(earlier, rand) < uuid7_hex(later, other_rand)


def test_ids_are_distinct_and_prefixed() -> None:
    ids = {new_id("pay") for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(id_.startswith("pay_") and len(id_) == 36 for id_ in ids)
