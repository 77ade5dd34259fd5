"""Settings that two services share. Every setting is an environment variable `FLORIN_<NAME>`, or
the content of a file `florin_<name>` in the directory that FLORIN_SECRETS_DIR names, as
orchestrators hand over secrets. What the environment says comes first.

A service extends `Settings` in its own config.py. Secrets are `SecretStr`: they print as stars.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import Misconfigured

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _delays(value: object) -> object:
    if not isinstance(value, str):
        return value
    delays = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(ms|s|m|h)?\s*", part)
        if match is None or not float(match[1]):
            raise ValueError(f"{part.strip()!r} is not a delay such as 5s, 30m or 2h")
        delays.append(float(match[1]) * _UNITS[match[2] or "s"])
    return tuple(delays)


Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """What every service needs to know."""

    model_config = SettingsConfigDict(env_prefix="FLORIN_", extra="ignore", frozen=True)

    database_url: SecretStr = SecretStr("postgresql://127.0.0.1:5432/florin")
    amqp_url: SecretStr = SecretStr("amqp://guest:guest@127.0.0.1:5672/")
    database_pool: int = Field(default=8, ge=2, le=200)
    """Postgres connections of this process, at most."""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    start_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait at start for Postgres and RabbitMQ before giving up."""
    drain_timeout: float = Field(default=25.0, gt=0)
    """Seconds that a stopping service may take to finish what it holds."""
    webhook_retry_delays: Annotated[tuple[float, ...], NoDecode, BeforeValidator(_delays)] = (
        5.0,
        300.0,
        1800.0,
        7200.0,
        18000.0,
        36000.0,
        50400.0,
        72000.0,
        86400.0,
    )
    """Seconds before each further attempt at a webhook, as `5s,5m,30m,2h`. The topology has a retry
    queue for each, so change it for the notifier and for `./florin topology` together."""
    outbox_sweep_interval: float = Field(default=1.0, gt=0)
    """Seconds between looks for outbox rows that a crash or an outage left behind."""


S = TypeVar("S", bound=Settings)


def is_in_a_file(variable: str) -> bool:
    """Whether the directory of secrets says the setting that an environment variable names."""
    directory = os.environ.get("FLORIN_SECRETS_DIR")
    return bool(directory) and (Path(str(directory)) / variable.lower()).is_file()


def load(kind: type[S]) -> S:
    """Settings from the environment and the directory of secrets. Raises Misconfigured, naming each
    variable and the remedy."""
    directory = os.environ.get("FLORIN_SECRETS_DIR")
    if directory and not Path(directory).is_dir():
        raise Misconfigured(
            f"wrong settings:\n  FLORIN_SECRETS_DIR: there is no directory {directory}"
        )
    try:
        return kind(_secrets_dir=directory or None)
    except ValidationError as error:
        lines = [
            f"FLORIN_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise Misconfigured("wrong settings:\n  " + "\n  ".join(lines)) from None
