"""`python -m services.api`: run the API until SIGTERM."""

from services.api.app import make_app
from services.api.config import ApiSettings
from shared.lifecycle import main

if __name__ == "__main__":
    main("api", ApiSettings, make_app)
