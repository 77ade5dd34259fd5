"""Settings of the API."""

import ipaddress
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Port, Settings
from shared.sealing import SealingKeys


class ApiSettings(Settings):
    """What the API needs to know, besides what every service does."""

    api_host: str = "127.0.0.1"
    api_port: Port = 8080
    api_published_on: str | None = None
    """The address at which others reach this port, where that is not `api_host`, but the machine's
    whose container this is."""
    auth: Literal["local", "required"] = "required"
    """`local` lets a request without credentials in as the default account; loopback only."""
    rate_limit: float = Field(default=10.0, gt=0)
    """Requests a second for each user, in the long run."""
    rate_burst: int = Field(default=10, ge=1)
    """Requests that a user may make at once."""
    sealing_keys: SealingKeys
    """What signing secrets are sealed with in the database; the first seals, every one opens."""
    accept_batch: int = Field(default=200, ge=1, le=1000)
    """Payments written by one commit, at most."""
    accept_queue: int = Field(default=500, ge=1)
    """Payments waiting for a commit; beyond it the answer is 503."""
    refuse_above: float = Field(default=0.25, gt=0)
    """Seconds by which the process may be late before new requests are refused with 503."""

    idempotency_retention: float = Field(default=86_400.0, ge=86_400)
    """Seconds for which a key brings its answer back, where no payment or refund keeps it."""

    @model_validator(mode="after")
    def _local_means_loopback(self) -> "ApiSettings":
        if self.auth == "local" and not is_loopback(self.reached_at):
            raise ValueError(
                f"FLORIN_AUTH=local would let anybody who reaches {self.reached_at} in as the"
                " default account: bind to 127.0.0.1, or set FLORIN_AUTH=required"
            )
        return self

    @property
    def reached_at(self) -> str:
        """The address at which clients find the API."""
        return self.api_published_on or self.api_host


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
