"""`python -m services.api`: run the API until SIGTERM."""

import sys

from services.api.app import make_app
from services.api.config import ApiSettings
from shared import lifecycle, log
from shared.config import load
from shared.errors import Misconfigured


def main() -> None:
    """Read the settings and run."""
    try:
        settings = load(ApiSettings)
    except Misconfigured as error:
        sys.exit(f"florin api: {error}")
    log.configure("api", settings.log_level)
    lifecycle.run("api", make_app(settings))


if __name__ == "__main__":
    main()
