"""Settles: claim, ask the gateway, write the outcome with its transfer and its event, then ack."""
