"""Form bodies with nested brackets, as Stripe's SDKs send them. Pure.

`metadata[order]=7&enabled_events[0]=a&enabled_events[]=b` is
`{"metadata": {"order": "7"}, "enabled_events": {"0": "a", "1": "b"}}`. A form cannot say whether 0
is a name or a place, and every value is text; the models decide what is meant.
"""

import re
from typing import Any, Final
from urllib.parse import parse_qsl

MAX_FIELDS: Final = 1000
MAX_DEPTH: Final = 8
_NAME: Final = re.compile(r"(?P<root>[^\[\]]+)(?P<path>(?:\[[^\[\]]*\])*)")
_STEP: Final = re.compile(r"\[([^\[\]]*)\]")


class InvalidForm(ValueError):  # noqa: N818 - an answer to a person
    """The body is not a form that has one meaning; the message says which field is wrong."""


def parse(body: bytes) -> dict[str, Any]:
    """The fields of an application/x-www-form-urlencoded body. Raises InvalidForm."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError:
        raise InvalidForm("The body is not UTF-8.") from None
    except ValueError:
        raise InvalidForm(
            f"The body is not a form of at most {MAX_FIELDS} fields such as a=1&b=2."
        ) from None
    tree: dict[str, Any] = {}
    for name, value in pairs:
        _insert(tree, name, value)
    return tree


def _insert(tree: dict[str, Any], name: str, value: str) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidForm(f"The field {name[:80]!r} is not named like a or a[b].")
    steps = [match["root"], *_STEP.findall(match["path"])]
    if len(steps) > MAX_DEPTH:
        raise InvalidForm(f"The field {name[:80]!r} is nested too deep.")
    for step in steps[:-1]:
        tree = tree.setdefault(step or str(len(tree)), {})
        if not isinstance(tree, dict):
            raise InvalidForm(f"The field {name[:80]!r} is a value and an object at once.")
    last = steps[-1] or str(len(tree))
    if last in tree:
        raise InvalidForm(f"The field {name[:80]!r} stands twice.")
    tree[last] = value
