"""Tells: one delivery for each event and subscribed endpoint, tried until it is heard."""
