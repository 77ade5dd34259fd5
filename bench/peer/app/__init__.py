"""A payment backend of FastAPI, SQLAlchemy and Celery, written as their documentation shows it.

It runs in an environment of its own and knows nothing of Florin; `bench.peer.up` starts it.
"""
