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


def free_port(preferred: int | None = None) -> int:
    """`preferred` when it is free, else some port that is."""
    if preferred and is_free(preferred):
        return preferred
    for _ in range(200):
        port = random.randrange(_LOWEST, _HIGHEST)  # noqa: S311 - not a secret
        if is_free(port):
            return port
    raise Misconfigured(f"no free port between {_LOWEST} and {_HIGHEST} on 127.0.0.1")
