"""Makes the secrets of a stack of containers, once: files, in directories of those who read them.

    python -m deploy.make_secrets FLORIN POSTGRES RABBITMQ

FLORIN gets what the services and commands read through FLORIN_SECRETS_DIR, POSTGRES the file that
POSTGRES_PASSWORD_FILE names, RABBITMQ a directory for RABBITMQ_CONFIG_FILES. What is there stays as
it is: a second run makes what a first one left unfinished, and nothing else.
"""

import fcntl
import os
import secrets
import sys
from pathlib import Path
from typing import Final

from shared.api_keys import make_key
from shared.sealing import make_sealing_key

RABBITMQ_CONFIGURATION: Final = """\
default_user = florin
default_pass = {password}
log.console = true
log.file = false
"""


def make_secrets(florin: Path, postgres: Path, rabbitmq: Path) -> list[Path]:
    """Make the files that are not there; returns them. The directories are. One run at a time: two
    at once would give the halves of one secret to different readers."""
    lock = os.open(florin, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make_missing(florin, postgres, rabbitmq)
    finally:
        os.close(lock)


def _make_missing(florin: Path, postgres: Path, rabbitmq: Path) -> list[Path]:
    made: list[Path] = []

    def keep(file: Path, content: str, mode: int) -> str:
        """The content of `file`, which is now there and whole."""
        if file.exists() and (there := file.read_text()):
            return there
        draft = file.with_name(f".{file.name}.new")
        draft.unlink(missing_ok=True)  # of a run that died: it may not be written to
        with draft.open("x") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.chmod(mode)
        draft.replace(file)
        _sync_directory(file.parent)
        made.append(file)
        return content

    # Read by the users of other images, in volumes that theirs alone have.
    password = keep(postgres / "password", secrets.token_urlsafe(24), 0o444)
    # Read by us alone. RabbitMQ takes every file of its directory for configuration.
    broker_password = keep(florin / "rabbitmq_password", secrets.token_urlsafe(18), 0o400)
    configuration = RABBITMQ_CONFIGURATION.format(password=broker_password)
    keep(rabbitmq / "10-florin.conf", configuration, 0o444)
    keep(florin / "florin_database_url", f"postgresql://florin:{password}@postgres/florin", 0o400)
    keep(florin / "florin_amqp_url", f"amqp://florin:{broker_password}@rabbitmq/", 0o400)
    keep(florin / "florin_bootstrap_key", make_key(), 0o400)
    keep(florin / "florin_sealing_keys", make_sealing_key(), 0o400)
    return made


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def main() -> None:
    """Make them in the three directories that the command line names."""
    os.umask(0o077)
    made = make_secrets(*(Path(argument) for argument in sys.argv[1:4]))
    for file in made:
        print(f"made {file}")
    if not made:
        print("every secret is there")


if __name__ == "__main__":
    main()
