"""Loopback ports that are free."""

import random
import socket
from typing import Final

from shared.errors import Misconfigured

# Below the range from which the kernel takes ports for outgoing connections, so that none of those
# sits on the port when a server of ours restarts.
_LOWEST: Final = 18_000
_HIGHEST: Final = 30_000


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


# Ports are chosen now and bound later: two choices of one process must not meet.
_given: Final[set[int]] = set()


def free_port(preferred: int | None = None) -> int:
    """`preferred` when it is free, else some port that is; never one that was given before."""
    candidates = [preferred] if preferred else []
    candidates += random.sample(range(_LOWEST, _HIGHEST), 200)
    for port in candidates:
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise Misconfigured(f"no free port between {_LOWEST} and {_HIGHEST} on 127.0.0.1")
