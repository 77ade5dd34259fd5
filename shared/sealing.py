"""Secrets at rest: sealed with a key that the database does not have.

Fernet (https://github.com/fernet/spec: AES-128-CBC and HMAC-SHA256) by the cryptography package.
The first key seals; every key opens, so that keys can be changed: put a new one first, and drop the
old one when nothing is left that it sealed.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from shared.errors import Misconfigured

PREFIX: Final = "sealed:"
REMEMBERED: Final = 10_000


def make_sealing_key() -> str:
    """A fresh key."""
    return Fernet.generate_key().decode()


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(SecretStr(part.strip()) for part in value.split(",") if part.strip())


def _are_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not keys:
        raise ValueError("has no key; make one with `./florin keys sealing`")
    for place, key in enumerate(keys, 1):
        try:
            Fernet(key.get_secret_value())
        except ValueError:
            raise ValueError(f"key {place} is not one that `./florin keys sealing` makes") from None
    return keys


SealingKeys = Annotated[
    tuple[SecretStr, ...], NoDecode, AfterValidator(_are_keys), BeforeValidator(_split)
]
"""Keys as a setting has them: separated by commas, the newest first."""


class Seal:
    """Seals texts, and opens what any of its keys has sealed."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._box = MultiFernet([Fernet(key.get_secret_value()) for key in keys])
        self._opened: dict[str, str] = {}

    def close(self, text: str) -> str:
        """`text`, sealed."""
        return PREFIX + self._box.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """What was sealed; a text that was stored before there were seals is returned as it is.

        Raises Misconfigured when none of the keys opens it.
        """
        if not sealed.startswith(PREFIX):
            return sealed
        opened = self._opened.get(sealed)
        if opened is None:
            try:
                opened = self._box.decrypt(sealed.removeprefix(PREFIX)).decode()
            except InvalidToken:
                raise Misconfigured(
                    "a secret was sealed with a key that FLORIN_SEALING_KEYS does not have: add"
                    " that key after the newest"
                ) from None
            if len(self._opened) >= REMEMBERED:
                self._opened.clear()
            self._opened[sealed] = opened
        return opened
