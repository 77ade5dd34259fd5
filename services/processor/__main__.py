"""`python -m services.processor`: run the processor until SIGTERM."""

import sys

from services.processor.app import make_app
from services.processor.config import ProcessorSettings
from shared import lifecycle, log
from shared.config import load
from shared.errors import Misconfigured


def main() -> None:
    """Read the settings and run."""
    try:
        settings = load(ProcessorSettings)
    except Misconfigured as error:
        sys.exit(f"florin processor: {error}")
    log.configure("processor", settings.log_level)
    lifecycle.run("processor", make_app(settings))


if __name__ == "__main__":
    main()
