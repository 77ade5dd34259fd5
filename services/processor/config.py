"""Settings of the processor."""

from pydantic import Field, model_validator

from shared.config import Port, Settings


class ProcessorSettings(Settings):
    """What the processor needs to know, besides what every service does."""

    consumers: int = Field(default=10, ge=1, le=200)
    """Consumers of processor.payments, each on its own channel."""
    refund_consumers: int = Field(default=4, ge=1, le=200)
    """Consumers of processor.refunds, likewise."""
    prefetch: int = Field(default=10, ge=1, le=1000)
    """Envelopes that each consumer may hold."""
    batch: int = Field(default=500, ge=1, le=5000)
    """Payments written by one commit, at most."""
    gateway_concurrency: int = Field(default=500, ge=1)
    """Questions to the gateway that may be open at once."""
    gateway_timeout: float = Field(default=10.0, gt=0)
    """Seconds after which the gateway's answer counts as unknown, never as failed."""
    ask_again_min: float = Field(default=5.0, gt=0)
    """Seconds before the gateway is first asked again about an unknown outcome."""
    ask_again_max: float = Field(default=3600.0, gt=0)
    lost_after: float = Field(default=60.0, gt=0)
    """Seconds after which an open payment that no queue holds is queued again."""
    janitor_interval: float = Field(default=1.0, gt=0)
    sandbox_latency_min: float = Field(default=0.1, ge=0)
    sandbox_latency_max: float = Field(default=0.3, ge=0)
    """Seconds that the sandbox gateway takes to answer, between these two."""
    sandbox_failure_rate: float = Field(default=0.0, ge=0, le=1)
    """The share of payments that the sandbox declines."""
    probe_host: str = "127.0.0.1"
    probe_port: Port = 0
    """Where /ready and /metrics answer; 0 for nowhere."""

    @model_validator(mode="after")
    def _latency_is_a_range(self) -> "ProcessorSettings":
        if self.sandbox_latency_max < self.sandbox_latency_min:
            raise ValueError("FLORIN_SANDBOX_LATENCY_MAX is below FLORIN_SANDBOX_LATENCY_MIN")
        return self
