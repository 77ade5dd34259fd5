"""What containers are made with: secrets by files, and a stack whose parts fit together."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import prometheus_client
import pytest
import yaml

from cli.compose import Stack, state_of
from deploy.make_secrets import make_secrets
from services.api.auth import PROXIED, Authenticator
from services.api.config import ApiSettings
from services.api.errors import Problem
from services.notifier.config import NotifierSettings
from shared import metrics
from shared.config import Settings, is_in_a_file, load
from shared.db import Database
from shared.errors import Misconfigured
from tests.system import SEALING_KEY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("florin", "postgres", "rabbitmq")]
    for path in paths:
        path.mkdir()
    return paths


def test_secrets_are_made_once_and_read_as_settings(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_secrets(*directories)
    contents = {file: file.read_text() for file in made}
    assert make_secrets(*directories) == []
    assert {file: file.read_text() for file in made} == contents

    monkeypatch.setenv("FLORIN_SECRETS_DIR", str(directories[0]))
    settings = load(ApiSettings)
    password = (directories[1] / "password").read_text()
    assert (
        settings.database_url.get_secret_value()
        == f"postgresql://florin:{password}@postgres/florin"
    )
    assert settings.sealing_keys
    broker = (directories[2] / "10-florin.conf").read_text()
    user, _, rest = settings.amqp_url.get_secret_value().removeprefix("amqp://").partition(":")
    assert f"default_user = {user}\ndefault_pass = {rest.partition('@')[0]}\n" in broker
    assert [file.name for file in directories[2].iterdir()] == ["10-florin.conf"], "all are read"


def test_what_a_first_run_left_unfinished_is_finished(directories: list[Path]) -> None:
    make_secrets(*directories)
    before = (directories[0] / "florin_amqp_url").read_text()
    (directories[0] / "florin_amqp_url").unlink()
    (directories[2] / "10-florin.conf").unlink()
    assert len(make_secrets(*directories)) == 2
    assert (directories[0] / "florin_amqp_url").read_text() == before


def test_what_a_run_that_died_left_behind_is_no_hindrance(directories: list[Path]) -> None:
    draft = directories[1] / ".password.new"
    draft.write_text("half")
    draft.chmod(0o400)
    (directories[0] / "florin_sealing_keys").write_text("")  # a name without its content
    made = {file.name for file in make_secrets(*directories)}
    assert {"password", "florin_sealing_keys"} <= made
    assert (directories[1] / "password").read_text() != "half"
    assert not draft.exists()
    assert (directories[0] / "florin_sealing_keys").read_text()


def test_only_their_readers_may_read_secrets(directories: list[Path]) -> None:
    make_secrets(*directories)
    assert {file.stat().st_mode & 0o777 for file in directories[0].iterdir()} == {0o400}


def test_the_environment_comes_before_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "florin_log_level").write_text("ERROR\n")
    monkeypatch.setenv("FLORIN_SECRETS_DIR", str(tmp_path))
    assert load(Settings).log_level == "ERROR"
    monkeypatch.setenv("FLORIN_LOG_LEVEL", "DEBUG")
    assert load(Settings).log_level == "DEBUG"


def test_a_wrong_secret_is_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "florin_sealing_keys").write_text("not-a-key")
    monkeypatch.setenv("FLORIN_SECRETS_DIR", str(tmp_path))
    with pytest.raises(Misconfigured, match="FLORIN_SEALING_KEYS") as raised:
        load(ApiSettings)
    assert "not-a-key" not in str(raised.value)


def test_a_directory_of_secrets_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORIN_SECRETS_DIR", "/nowhere/secrets")
    with pytest.raises(Misconfigured, match="there is no directory /nowhere/secrets"):
        load(Settings)


@pytest.mark.parametrize(
    ("published", "starts"), [("127.0.0.1", True), ("0.0.0.0", False), (None, False)]
)
def test_without_keys_a_container_is_published_on_loopback_alone(
    published: str | None, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLORIN_SEALING_KEYS", SEALING_KEY)
    monkeypatch.setenv("FLORIN_AUTH", "local")
    monkeypatch.setenv("FLORIN_API_HOST", "0.0.0.0")
    if published:
        monkeypatch.setenv("FLORIN_API_PUBLISHED_ON", published)
    if starts:
        assert load(ApiSettings).auth == "local"
    else:
        with pytest.raises(Misconfigured, match="FLORIN_AUTH=required"):
            load(ApiSettings)


@pytest.mark.parametrize(("auth", "reached"), [("local", True), ("required", False)])
def test_the_machine_itself_hears_webhooks_only_while_it_alone_uses_the_api(
    auth: str, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLORIN_SEALING_KEYS", SEALING_KEY)
    monkeypatch.setenv("FLORIN_WEBHOOK_LOCAL_NETWORKS", "172.17.0.1/32")
    monkeypatch.setenv("FLORIN_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8")
    monkeypatch.setenv("FLORIN_AUTH", auth)
    networks = [str(network) for network in load(NotifierSettings).reachable_networks]
    assert networks == (["10.0.0.0/8", "172.17.0.1/32"] if reached else ["10.0.0.0/8"])


@pytest.mark.parametrize("header", PROXIED)
def test_without_keys_no_proxy_is_answered(header: str) -> None:
    local = Authenticator(cast(Database, None), local=True)
    local.check_origin({"Host": "127.0.0.1:8080"}, any_name=False)
    with pytest.raises(Problem, match="came through a proxy"):
        local.check_origin({"Host": "127.0.0.1:8080", header: "1.2.3.4"}, any_name=False)


def test_probes_are_answered_under_any_name_and_nothing_else_is() -> None:
    local = Authenticator(cast(Database, None), local=True)
    local.check_origin({"Host": "api:8080"}, any_name=True)
    with pytest.raises(Problem, match="loopback names only"):
        local.check_origin({"Host": "api:8080"}, any_name=False)
    with pytest.raises(Problem, match="without a key"):
        local.check_origin({"Host": "api:8080", "Origin": "http://evil"}, any_name=True)


def test_a_setting_that_a_file_says_is_known_to_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "florin_sealing_keys").write_text(SEALING_KEY)
    monkeypatch.setenv("FLORIN_SECRETS_DIR", str(tmp_path))
    assert is_in_a_file("FLORIN_SEALING_KEYS")
    assert not is_in_a_file("FLORIN_AUTH")


def stack() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


def test_every_container_of_ours_is_read_only_unprivileged_and_limited() -> None:
    services = stack()["services"]
    ours = {n: s for n, s in services.items() if s["image"].startswith("${FLORIN_IMAGE")}
    assert [name for name, service in services.items() if "build" in service] == ["secrets"]
    assert set(ours) == {"secrets", "migrate", "topology", "api", "processor", "notifier"}
    for service in ours.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "user" not in service, "the image's own"
        assert service["mem_limit"]
    for name in ("api", "processor", "notifier"):
        assert ours[name]["restart"] == "unless-stopped"
        assert float(ours[name]["stop_grace_period"].rstrip("s")) > 25


def test_nothing_is_published_off_loopback_by_default() -> None:
    for name, service in stack()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${FLORIN_PUBLISH:-127.0.0.1}:")), (name, port)


def test_no_secret_is_in_the_stack_and_only_their_readers_have_the_volumes() -> None:
    readers: dict[str, set[str]] = {}
    for name, service in stack()["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            assert not variable.endswith(("PASSWORD", "PASS", "KEYS", "KEY", "URL")), (name, value)
        for volume in service.get("volumes", []):
            readers.setdefault(volume.split(":")[0], set()).add(name)
    assert readers["postgres-secrets"] == {"secrets", "postgres"}
    assert readers["rabbitmq-secrets"] == {"secrets", "rabbitmq"}
    assert readers["secrets"] == {"secrets", "migrate", "topology", "api", "processor", "notifier"}


def test_each_panel_asks_for_metrics_that_there_are() -> None:
    """A dashboard whose queries name a metric nobody exposes shows nothing, and says nothing."""
    assert metrics.PUBLISHED.describe(), "imported, so that all are registered"
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/florin.json").read_text())
    known = {
        f"{family.name}{suffix}"
        for family in prometheus_client.REGISTRY.collect()
        for suffix in ("", "_total", "_bucket", "_count", "_sum")
    } | {"florin_charges_total", "florin_refunds_total", "florin_webhooks_total"}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for name in re.findall(r"florin_\w+", target["expr"]):
                assert name in known, (panel["title"], name)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({"Status": "running", "Health": {"Status": "healthy"}, "ExitCode": 0}, "healthy"),
        ({"Status": "running", "ExitCode": 0}, "running"),
        ({"Status": "exited", "ExitCode": 0}, "done"),
        ({"Status": "exited", "ExitCode": 2}, "failed (2)"),
        ({"Status": "restarting", "ExitCode": 1}, "restarting"),
    ],
)
def test_the_state_of_a_container_is_one_word(state: dict[str, Any], word: str) -> None:
    assert state_of(state) == word


def test_where_there_is_no_docker_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="no `docker` is on PATH: install it"):
        Stack.find(8080)
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    with pytest.raises(Misconfigured, match="no Docker engine answers: start it"):
        Stack.find(8080)
    docker.write_text('#!/bin/sh\n[ "$1" = info ]\n')
    with pytest.raises(Misconfigured, match="install the compose plugin"):
        Stack.find(8080)


def test_two_runs_at_once_agree_about_every_secret(directories: list[Path]) -> None:
    with ThreadPoolExecutor(8) as runs:
        made = [
            file
            for files in runs.map(lambda _: make_secrets(*directories), range(8))
            for file in files
        ]
    assert len(made) == len(set(made)), "each was made once"
    password = (directories[1] / "password").read_text()
    assert f":{password}@" in (directories[0] / "florin_database_url").read_text()
