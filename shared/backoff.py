"""How long to wait before the next try: exponential with full jitter, as a pure function."""


def exponential(attempt: int, *, base: float, cap: float, rand: float) -> float:
    """Seconds before try number `attempt` (1 is the first retry), for `rand` in [0, 1).

    Half of `base·2^(attempt-1)`, capped, is certain and half is jitter: never zero, so that a
    loop that fails at once cannot spin.
    """
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 60))
    return ceiling * (1 + rand) / 2
