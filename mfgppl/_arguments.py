"""Checks of arguments at the public doors."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# words of neighbouring packages, and ours
SYNONYMS = {
    "adapt_delta": "target_accept",
    "beta": "temperature",
    "burn_in": "tune",
    "gamma": "discount",
    "initial_distribution": "initial",
    "iter": "draws",
    "max_tree_depth": "max_treedepth",
    "maxdepth": "max_treedepth",
    "n_chains": "chains",
    "n_draws": "draws",
    "n_jobs": "cores",
    "n_samples": "draws",
    "num_chains": "chains",
    "num_samples": "draws",
    "num_warmup": "tune",
    "progress_bar": "progressbar",
    "samples": "draws",
    "seed": "random_seed",
    "target_accept_prob": "target_accept",
    "transitions": "transition",
    "warmup": "tune",
    "warmup_steps": "tune",
}


def suggestion(word: object, known: Iterable[object]) -> str:
    """Return " did you mean `x`?" where a known word is close, else an empty string."""
    options = {str(k): k for k in known}
    synonym = SYNONYMS.get(str(word))
    close = difflib.get_close_matches(str(word), options, n=1, cutoff=0.6)
    best = synonym if synonym in options else (close[0] if close else None)
    return f" did you mean `{best}`?" if best is not None else ""


def strict_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Make an unknown keyword raise a `TypeError` that suggests the known one."""
    known = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                hint = suggestion(name, known) or f" valid: {', '.join(known)}."
                label = function.__qualname__.removesuffix(".__init__")
                raise TypeError(f"{label}() has no argument `{name}`;{hint}")
        return function(*args, **kwargs)

    return checked


def one_of(name: str, value: Any, options: Iterable[str]) -> Any:
    """Return `value` if it is one of `options`, else raise a `ValueError` that lists them."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(o) for o in options)
        hint = suggestion(value, options)
        raise ValueError(f"`{name}` must be one of {listed}; got {value!r}.{hint}")
    return value


def positive_int(name: str, value: Any, *, least: int = 1) -> int:
    """Return `value` as an int of at least `least`, else raise."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"`{name}` must be an integer; got {value!r}.")
    number = int(value.__index__())
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}; got {number}.")
    return number


def real_between(
    name: str, value: Any, *, above: float, upto: float = float("inf"), strict: bool = False
) -> float:
    """Return `value` as a float in (above, upto], or (above, upto) if `strict`; else raise."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a number; got {value!r}.") from None
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be a finite number; got {number}.")
    inside = above < number < upto if strict else above < number <= upto
    if not inside:
        if upto == float("inf"):
            raise ValueError(f"`{name}` must be above {above:g}; got {number:g}.")
        bracket = ")" if strict else "]"
        raise ValueError(f"`{name}` must lie in ({above:g}, {upto:g}{bracket}; got {number:g}.")
    return number


def not_negative(name: str, value: Any) -> float:
    """Return `value` as a finite float that is not negative, else raise."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a number; got {value!r}.") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"`{name}` must be finite and not negative; got {number:g}.")
    return number


def is_a(name: str, value: Any, kind: type, hint: str = "") -> Any:
    """Return `value` if it is of a kind, else raise a `TypeError` that says what came."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__}; got {type(value).__name__}.{hint}")
    return value
