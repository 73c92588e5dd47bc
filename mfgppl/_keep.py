"""What follows from an object and is kept with it: worked out once, left out of copies.

A density refers to its model and a recording to its game, so that a table with weak keys would
never let them go: what is kept lives and goes with the object that it follows from.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Owner = TypeVar("Owner")
Value = TypeVar("Value")


class Keeper:
    """Base of objects with which something is kept."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be worked out anew, for copies and for tasks in other processes."""
        return {k: v for k, v in vars(self).items() if k != "_kept"}


def kept_with(owner: object) -> dict[Any, Any]:
    """Return what is kept with an object, by name."""
    found: dict[Any, Any] = vars(owner).setdefault("_kept", {})
    return found


def keep(owner: object, name: str, make: Callable[[], Value]) -> Value:
    """Return what is kept with an object under a name, made at the first call."""
    found = kept_with(owner)
    if name not in found:
        found[name] = make()
    value: Value = found[name]
    return value


def kept(work: Callable[[Owner], Value]) -> Callable[[Owner], Value]:
    """Decorate a function of one object: its value is kept with the object, under its name."""

    @functools.wraps(work)
    def value(owner: Owner) -> Value:
        return keep(owner, work.__name__, lambda: work(owner))

    return value
