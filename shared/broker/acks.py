"""Which messages may be acked. Pure."""


class AckWindow:
    """Which delivery tags of one channel are finished: only a contiguous prefix may be acked.

    An ack of many covers every open tag up to the one it names; were one of them unfinished, a
    crash would lose it.
    """

    def __init__(self) -> None:
        self._finished: dict[int, bool] = {}

    def received(self, tag: int) -> None:
        """A message came; tags rise by one."""
        self._finished[tag] = False

    def finished(self, tag: int) -> None:
        """The message is done with and waits for its ack."""
        self._finished[tag] = True

    def given_back(self, tag: int) -> None:
        """The message was rejected on its own: it must not be acked."""
        del self._finished[tag]

    def take(self) -> int | None:
        """The tag to ack up to, or None when there is nothing to ack. Each is given once."""
        last = None
        for tag, is_finished in self._finished.items():
            if not is_finished:
                break
            last = tag
        if last is not None:
            self._finished = {t: done for t, done in self._finished.items() if t > last}
        return last
