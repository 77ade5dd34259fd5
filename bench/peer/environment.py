"""The peer's own Python environment, `.venv-peer`: made on first use, and again when what it holds
is to be something else. Nothing of it is imported here."""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.local.binaries import Say
from shared.errors import Misconfigured

HERE: Final = Path(__file__).parent
VENV: Final = HERE.parent.parent / ".venv-peer"
REQUIREMENTS: Final = HERE / "requirements.txt"


def make_environment(say: Say) -> Path:
    """The Python of an environment that holds what the peer runs on.

    `say` hears of it when it has to be made. Raises Misconfigured with the end of what pip said.
    """
    python = VENV / "bin" / "python"
    stamp = VENV / "installed"
    wanted = f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {platform.python_version()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"making {VENV.name} with FastAPI, SQLAlchemy and Celery, once")
    _run(sys.executable, "-m", "venv", "--clear", str(VENV))
    _run(
        str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-input", "--require-hashes", "-r", str(REQUIREMENTS),
    )  # fmt: skip
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise Misconfigured(f"{VENV.name} could not be made:\n" + "\n".join(said))
