"""`python -m services.notifier`: run the notifier until SIGTERM."""

import sys

from services.notifier.app import make_app
from services.notifier.config import NotifierSettings
from shared import lifecycle, log
from shared.config import load
from shared.errors import Misconfigured


def main() -> None:
    """Read the settings and run."""
    try:
        settings = load(NotifierSettings)
    except Misconfigured as error:
        sys.exit(f"florin notifier: {error}")
    log.configure("notifier", settings.log_level)
    lifecycle.run("notifier", make_app(settings))


if __name__ == "__main__":
    main()
