"""Accepts: authenticate, limit, validate, commit, answer. Settling and telling are others' work."""
