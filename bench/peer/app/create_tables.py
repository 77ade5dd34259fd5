"""`python -m app.create_tables`: makes the tables that are missing."""

from .database import engine
from .models import Base

if __name__ == "__main__":
    Base.metadata.create_all(engine)
