"""The three ways in which work can fail, named by what to do next.

Adapters translate a library's errors into these at their edge; everything inside matches on them.
"""


class FlorinError(Exception):
    """The root of every error that Florin raises on purpose."""


class Transient(FlorinError):  # noqa: N818 - reads as what it is: `except Transient`
    """It may work later, unchanged: the database restarts, the broker is away. Try again."""


class Permanent(FlorinError):  # noqa: N818
    """It will never work, unchanged: a row the database refuses. Isolate it and say why."""


class Malformed(Permanent):
    """A message that is not what its queue carries. To the dead queue, with the reason."""


class Misconfigured(FlorinError):  # noqa: N818
    """A setting or the machine is wrong; the message says what happened and what to do."""
