"""Server-sent events as a client reads them: a pure decoder of lines."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a stream."""

    id: str
    type: str
    data: str


class Decoder:
    """Takes lines, gives events (HTML Living Standard §9.2.6). Comments are passed over."""

    def __init__(self) -> None:
        self._type = "message"
        self._id = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Iterator[Told]:
        """The event that ends with `line`, if one does."""
        line = line.rstrip("\r\n")
        if not line:
            if self._data:
                yield Told(self._id, self._type, "\n".join(self._data))
            self._type, self._data = "message", []
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._id = value
