"""The image's health check: exit status 0 when this container's service says that it is ready.

Without curl, which the image does not have, and with as few imports as will do: it runs every few
seconds for as long as the container does.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException


def main() -> int:
    """Ask /ready at FLORIN_PROBE_PORT, or where the API listens."""
    port = int(os.environ.get("FLORIN_PROBE_PORT") or os.environ.get("FLORIN_API_PORT") or 8080)
    connection = HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        if answer.status == 200:
            return 0
        print(answer.read().decode())
    except (OSError, HTTPException) as error:
        print(f"no answer at port {port}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
