"""`python -m services.notifier`: run the notifier until SIGTERM."""

from services.notifier.app import make_app
from services.notifier.config import NotifierSettings
from shared.lifecycle import main

if __name__ == "__main__":
    main("notifier", NotifierSettings, make_app)
