"""API keys: made of randomness, shown once, stored as a hash.

A key is `sk_` and 43 characters from 32 random bytes, so a plain SHA-256 cannot be guessed back;
its first characters find the row, and the whole is compared in constant time.
"""

import hashlib
import hmac
import secrets
from typing import Final

PREFIX_LENGTH: Final = 12
MINIMUM_LENGTH: Final = 24


def make_key() -> str:
    """A new secret key."""
    return f"sk_{secrets.token_urlsafe(32)}"


def is_well_formed(key: str) -> bool:
    """Whether `key` could be one that is safe to use."""
    return key.startswith("sk_") and len(key) >= MINIMUM_LENGTH and key.isascii()


def prefix_of(key: str) -> str:
    """The part of a key that may be stored and shown."""
    return key[:PREFIX_LENGTH]


def hash_key(key: str) -> bytes:
    """The SHA-256 that is stored in place of the key."""
    return hashlib.sha256(key.encode()).digest()


def matches(key: str, stored: bytes) -> bool:
    """Whether `key` is the one whose hash is stored, in constant time."""
    return hmac.compare_digest(hash_key(key), stored)
