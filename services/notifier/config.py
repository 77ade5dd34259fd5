"""Settings of the notifier."""

import ipaddress
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from services.notifier.addresses import Network
from shared.config import Port, Settings
from shared.sealing import SealingKeys


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())


class NotifierSettings(Settings):
    """What the notifier needs to know, besides what every service does."""

    notifier_consumers: int = Field(default=4, ge=1, le=200)
    """Consumers of notifier.events and of notifier.deliveries, each on its own channel."""
    notifier_prefetch: int = Field(default=10, ge=1, le=1000)
    """Envelopes that each consumer may hold."""
    sealing_keys: SealingKeys
    """What signing secrets are sealed with in the database, as the API has them."""
    webhook_timeout: float = Field(default=15.0, gt=0)
    """Seconds for one attempt: name look-up, connection, request and response together."""
    webhook_in_flight: int = Field(default=256, ge=1)
    """Attempts under way at once, at most."""
    webhook_backlog_rate: float = Field(default=50.0, gt=0)
    """Attempts a second, at most, at what endpoints did not take before, while there is news."""
    webhook_disable_after: float = Field(default=432_000.0, gt=0)
    """Seconds for which an endpoint may fail before it is disabled: 5 days."""
    webhook_retention: float = Field(default=7_776_000.0, ge=0)
    """Seconds for which events, deliveries and attempts are kept: 90 days; 0 for ever. What is
    still to be delivered is kept however old it is."""
    webhook_allowed_networks: Annotated[
        tuple[Network, ...], NoDecode, BeforeValidator(_networks)
    ] = ()
    """Networks that webhooks may reach although they are not public, such as `10.0.0.0/8`; and by
    http, too."""
    webhook_local_networks: Annotated[
        tuple[Network, ...], NoDecode, BeforeValidator(_networks)
    ] = ()
    """The same, while `auth` is `local`: of the machine that alone uses the API."""
    auth: Literal["local", "required"] = "required"
    """As the API has it."""
    webhook_allow_http: bool = False
    """Whether webhooks may go to public addresses by http, where anybody on the way reads them."""
    lost_after: float = Field(default=60.0, gt=0)
    """Seconds after which an event or delivery that no queue brings is looked after anyway."""
    notifier_sweep_interval: float = Field(default=1.0, gt=0)
    probe_host: str = "127.0.0.1"
    probe_port: Port = 0
    """Where /ready and /metrics answer; 0 for nowhere."""

    @property
    def reachable_networks(self) -> tuple[Network, ...]:
        """Networks that webhooks may reach although they are not public."""
        local = self.webhook_local_networks if self.auth == "local" else ()
        return self.webhook_allowed_networks + local
