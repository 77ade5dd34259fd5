"""A private RabbitMQ: its own Erlang node, cookie, port mapper and ports, all on loopback."""

import hashlib
import os
from pathlib import Path
from typing import Final

from deploy.local.binaries import Binaries
from deploy.local.instance import Instance
from deploy.local.processes import Command
from shared.broker import BrokerUnavailable, connect

_PLUGINS: Final = "[rabbitmq_management].\n"


class PrivateRabbitMQ:
    """The node whose files are under `directory`, written by `prepare`."""

    def __init__(self, binaries: Binaries, directory: Path, instance: Instance) -> None:
        self._binaries = binaries
        self._directory = directory
        self._instance = instance
        self._node = f"florin-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}@localhost"

    def prepare(self) -> None:
        """Write the configuration. User and password count when the node is first made."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "enabled_plugins").write_text(_PLUGINS)
        configuration = self._directory / "rabbitmq.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            "\n".join(
                (
                    f"listeners.tcp.1 = 127.0.0.1:{self._instance.amqp_port}",
                    "management.tcp.ip = 127.0.0.1",
                    f"management.tcp.port = {self._instance.management_port}",
                    "default_user = florin",
                    f"default_pass = {self._instance.rabbitmq_password}",
                    "default_user_tags.administrator = true",
                    "log.file = false",
                    "log.console = true",
                    "log.console.level = warning",
                    "disk_free_limit.absolute = 200MB",
                    "",
                )
            )
        )

    def commands(self) -> tuple[Command, Command]:
        """The port mapper and the server, in the order in which they start."""
        # Without a port mapper of its own, Erlang would start one that outlives the node.
        name_server = Command(
            name="epmd",
            arguments=[
                str(self._directory / "epmd"),
                "-address",
                "127.0.0.1",
                "-port",
                str(self._instance.epmd_port),
            ],
            executable=self._binaries.epmd,
            environment={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            directory=self._directory,
            stop_timeout=5,
        )
        server = Command(
            name="rabbitmq",
            arguments=["/bin/sh", str(self._binaries.rabbitmq)],
            environment=self._environment(),
            directory=self._directory,
        )
        return name_server, server

    async def is_ready(self) -> bool:
        """Whether it takes connections now."""
        try:
            connection = await connect(self._instance.amqp_url, name="florin start-up probe")
        except BrokerUnavailable:
            return False
        await connection.close()
        return True

    def _environment(self) -> dict[str, str]:
        here, instance = self._directory, self._instance
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
            "LANG": "C.UTF-8",
            "HOME": str(here),  # where the Erlang cookie is
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(instance.amqp_port),
            "RABBITMQ_DIST_PORT": str(instance.distribution_port),
            "RABBITMQ_MNESIA_BASE": str(here / "mnesia"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "no-such-file"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(instance.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The start script then becomes the server instead of waiting for it: SIGTERM reaches
            # Erlang, which shuts down in order.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
