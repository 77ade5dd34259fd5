"""What the processes are told by their environment."""

import os
from typing import Final

DATABASE_URL: Final = os.environ["PEER_DATABASE_URL"]
"""As SQLAlchemy writes it: `postgresql+psycopg://…`."""
BROKER_URL: Final = os.environ["PEER_BROKER_URL"]
DATA_ACCESS: Final = os.environ.get("PEER_DATA_ACCESS", "orm")
"""`orm` or `core`: how the rows are read and written."""
GATEWAY_LATENCY: Final = (
    float(os.environ.get("PEER_GATEWAY_LATENCY_MIN", "0")),
    float(os.environ.get("PEER_GATEWAY_LATENCY_MAX", "0.02")),
)
"""The shortest and the longest that the gateway takes, in seconds."""
READY_FILE: Final = os.environ.get("PEER_READY_FILE")
"""Is made when the worker takes tasks."""
