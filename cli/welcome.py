"""What a person sees first, when everything runs."""

from dataclasses import dataclass

from rich.console import Console


@dataclass(frozen=True, slots=True)
class Management:
    """RabbitMQ's management UI, and how to log in."""

    url: str
    user: str
    password: str


def greet(console: Console, url: str, key: str, management: Management | None) -> None:
    """Say where everything is, and how to make a payment."""
    say = console.print
    say()
    say(f"  API         {url}/api/v1   (health: {url}/health)", soft_wrap=True)
    say(f"  key         {key}", soft_wrap=True)
    if management is not None:
        say(
            f"  RabbitMQ    {management.url}"
            f"   (login {management.user}, password {management.password})",
            soft_wrap=True,
        )
    say("\n  A payment:\n")
    say(
        f"  curl -s {url}/api/v1/payments -H 'Content-Type: application/json'"
        " -H 'X-User-ID: user123'"
        """ -d '{"user_id":"user123","amount":100.50,"currency":"THB"}'""",
        soft_wrap=True,
        markup=False,
    )
    say("\n  Ctrl-C drains and stops everything; the data stays.", soft_wrap=True)
