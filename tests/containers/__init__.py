"""Containers: built, started and used by a Docker engine."""
