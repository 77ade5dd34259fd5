"""Settings are refused by name, and dangerous ones are refused at start."""

import pytest

from services.api.config import ApiSettings
from services.notifier.config import NotifierSettings
from services.processor.config import ProcessorSettings
from shared.config import load
from shared.errors import Misconfigured
from shared.log import without_secrets
from shared.sealing import make_sealing_key
from shared.topology import describe, retry_queue, rung


@pytest.fixture(autouse=True)
def sealing_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no default."""
    monkeypatch.setenv("FLORIN_SEALING_KEYS", make_sealing_key())


@pytest.mark.parametrize(
    ("kind", "name", "value", "says"),
    [
        (ApiSettings, "FLORIN_API_PORT", "http", "FLORIN_API_PORT"),
        (ApiSettings, "FLORIN_RATE_LIMIT", "0", "FLORIN_RATE_LIMIT"),
        (ProcessorSettings, "FLORIN_CONSUMERS", "-1", "FLORIN_CONSUMERS"),
        (ProcessorSettings, "FLORIN_SANDBOX_FAILURE_RATE", "2", "FLORIN_SANDBOX_FAILURE_RATE"),
        (NotifierSettings, "FLORIN_WEBHOOK_RETRY_DELAYS", "5s,soon", "'soon' is not a delay"),
        (NotifierSettings, "FLORIN_WEBHOOK_RETRY_DELAYS", "0s", "'0s' is not a delay"),
        (NotifierSettings, "FLORIN_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.1/8", "host bits"),
    ],
)
def test_a_wrong_setting_is_named(
    kind: type[ApiSettings], name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=says):
        load(kind)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_the_open_api_is_refused_off_loopback(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORIN_AUTH", "local")
    monkeypatch.setenv("FLORIN_API_HOST", host)
    with pytest.raises(Misconfigured, match="FLORIN_AUTH=required"):
        load(ApiSettings)


def test_delays_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORIN_WEBHOOK_RETRY_DELAYS", "250ms, 5s,5m,2h,7")
    assert load(NotifierSettings).webhook_retry_delays == (0.25, 5.0, 300.0, 7200.0, 7.0)


def test_the_default_schedule_lasts_longer_than_three_days() -> None:
    delays = load(NotifierSettings).webhook_retry_delays
    assert [rung(delay) for delay in delays] == [
        "5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h",
    ]  # fmt: skip
    assert sum(delays) > 3 * 86_400


def test_every_rung_of_the_schedule_has_a_queue_of_its_own() -> None:
    delays = (0.25, 5.0, 300.0)
    queues = {queue.name: queue for queue in describe(delays).queues}
    for delay in delays:
        queue = queues[retry_queue(delay)]
        assert queue.arguments["x-message-ttl"] == int(delay * 1000)
        assert queue.arguments["x-dead-letter-routing-key"] == "deliveries"


def test_every_queue_is_quorum_and_what_can_fail_is_limited_and_kept() -> None:
    for queue in describe((5.0,)).queues:
        arguments = queue.arguments
        assert arguments["x-queue-type"] == "quorum"
        if queue.name.endswith(("dead", "unroutable")):
            continue
        assert arguments["x-delivery-limit"] > 0
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@db:5432/florin?password=x", "postgresql://db:5432/florin"),
        ("amqp://me:pw@[::1]:5672/%2F", "amqp://[::1]:5672/%2F"),
        ("amqp://rabbit", "amqp://rabbit"),
        ("postgresql://u:p@a:5432,b:5432/florin", "postgresql://a:5432,b:5432/florin"),
        ("postgresql://user:Secr/et@9@host/db", "postgresql://host/db"),
        ("secret", "an address without a scheme"),
    ],
)
def test_a_url_is_logged_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
