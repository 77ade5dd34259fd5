"""Only a contiguous prefix of finished messages is acked."""

from hypothesis import given
from hypothesis import strategies as st

from shared.broker.acks import AckWindow


@given(st.data(), st.integers(1, 30))
def test_an_ack_never_covers_what_is_not_finished(data: st.DataObject, count: int) -> None:
    window = AckWindow()
    for tag in range(1, count + 1):
        window.received(tag)
    order = data.draw(st.permutations(range(1, count + 1)))
    rejected = data.draw(st.sets(st.sampled_from(range(1, count + 1))))
    done: set[int] = set()
    acked = 0
    for tag in order:
        if tag in rejected:
            window.given_back(tag)
        else:
            window.finished(tag)
        up_to = window.take()
        done.add(tag)
        if up_to is not None:
            assert up_to > acked
            assert up_to not in rejected, "an ack must name a tag that is still open"
            assert set(range(1, up_to + 1)) <= done
            acked = up_to
    assert set(range(acked + 1, count + 1)) <= rejected, "in the end all is acked or given back"
