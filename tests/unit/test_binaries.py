"""What is missing on a machine is installed, or said with the command that would."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.local import binaries
from shared.errors import Misconfigured


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has neither server."""
    monkeypatch.setattr(binaries, "find_postgres", lambda: None)
    monkeypatch.setattr(binaries, "find_rabbitmq", lambda: None)
    return monkeypatch


def test_without_apt_the_remedy_is_to_install_or_to_point_elsewhere(
    bare: pytest.MonkeyPatch,
) -> None:
    bare.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Misconfigured, match=r"there is no apt-get.*FLORIN_DATABASE_URL"):
        binaries.find_or_install(print)


def test_without_root_the_remedy_is_the_command(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    bare.setattr(os, "geteuid", lambda: 1000)
    bare.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], returncode=1))
    with pytest.raises(Misconfigured, match="sudo `apt-get install postgresql rabbitmq-server`"):
        binaries.find_or_install(print)


def test_an_installation_that_fails_is_said_in_apts_own_words_and_leaves_no_policy(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    seen: list[bool] = []

    def run(command: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append(policy.exists())
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package")

    bare.setattr(binaries, "_POLICY", policy)
    bare.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    bare.setattr(os, "geteuid", lambda: 0)
    bare.setattr(subprocess, "run", run)
    said: list[str] = []
    with pytest.raises(Misconfigured, match="E: Unable to locate package"):
        binaries.find_or_install(said.append)
    assert len(said) == 1
    assert "installing postgresql and rabbitmq-server with apt" in said[0]
    assert seen == [True], "while apt works, nothing that it installs is started"
    assert not policy.exists()


def test_the_newest_postgres_that_is_new_enough_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (13, 15, 17):
        folder = tmp_path / str(version)
        folder.mkdir()
        (folder / "initdb").touch()
        (folder / "postgres").write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}.1'\n")
        (folder / "postgres").chmod(0o755)
    path = os.pathsep.join(str(tmp_path / str(version)) for version in (13, 17, 15))
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
    assert binaries.find_postgres() == tmp_path / "17"
