"""`python -m services.processor`: run the processor until SIGTERM."""

from services.processor.app import make_app
from services.processor.config import ProcessorSettings
from shared.lifecycle import main

if __name__ == "__main__":
    main("processor", ProcessorSettings, make_app)
