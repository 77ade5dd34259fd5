"""The engine of this process. Connections are made when they are needed, after a worker forked."""

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from . import config

THREADS = 10
"""Of the API, each with a connection of its own while it needs one."""

engine = create_engine(config.DATABASE_URL, pool_size=THREADS, max_overflow=0)
autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
"""For single statements: no BEGIN before and no COMMIT after."""
Session = sessionmaker(engine, expire_on_commit=False)
