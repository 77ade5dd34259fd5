"""Ports that are chosen together do not meet."""

import random
import socket

import pytest

from deploy.local import ports


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(random, "sample", lambda *_: [18_501, 18_502, 18_503])
    free = [port for port in (18_501, 18_502, 18_503) if ports.is_free(port)]
    assert [ports.free_port() for _ in free] == free


def test_a_preferred_port_is_taken_only_while_it_is_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert ports.free_port(taken) != taken
