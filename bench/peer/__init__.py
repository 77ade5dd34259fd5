"""A peer to compare with: the same payment, as a team builds it with FastAPI and Celery."""
