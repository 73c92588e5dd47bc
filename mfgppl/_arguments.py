"""Checks of arguments at the public doors."""

import difflib
import functools
import inspect
import math
import secrets
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from mfgppl._modes import own_modes

P = ParamSpec("P")
R = TypeVar("R")

Seed = int | np.integer | np.random.SeedSequence | str | None  # None: a fresh one
LARGEST = 2**63 - 1  # integer of arrays and files

# numpy's own treatment of floating point errors
USUAL: dict[str, Any] = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}

# words of neighbouring packages, and ours
SYNONYMS = {
    "adapt_delta": "target_accept",
    "beta": "temperature",
    "burn_in": "tune",
    "confidence": "ci_prob",
    "cores": "n_jobs",
    "dense_mass": "mass_matrix",
    "flow": "mean_field",
    "full_mass": "mass_matrix",
    "gamma": "discount",
    "hdi_prob": "ci_prob",
    "initial_distribution": "initial",
    "iter": "draws",
    "level": "ci_prob",
    "low_rank_modified_mass_matrix": "mass_matrix",
    "max_tree_depth": "max_treedepth",
    "maxdepth": "max_treedepth",
    "metric": "mass_matrix",
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
    "world": "mean_field",
}


def suggestion(word: object, known: Iterable[object]) -> str:
    """Return " did you mean `x`?" where a known word is close, else an empty string."""
    options = {str(k): k for k in known}
    synonym = SYNONYMS.get(str(word))
    close = difflib.get_close_matches(str(word), options, n=1, cutoff=0.6)
    best = synonym if synonym in options else (close[0] if close else None)
    return f" did you mean `{best}`?" if best is not None else ""


def strict_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Make an unknown keyword raise a `TypeError` that suggests the known one.

    What is alike at all doors is checked here: flags, which are True or False by default, and
    `n_jobs`. An integer may come as an array of one. The function runs in modes of our own,
    whatever torch's modes are outside, with gradients on, and as numpy is set by default: an
    exponential that underflows is no error of the caller's.
    """
    return _door(function, gradients=True)


def differentiable_door(function: Callable[P, R]) -> Callable[P, R]:
    """As `strict_keywords`, where tensors go through: gradients are as the caller has them."""
    return _door(function, gradients=False)


def known_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Make an unknown keyword raise such an error, and no more: for what programs call."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_keywords(function, known, kwargs)
        return function(*args, **kwargs)

    return checked


def _check_keywords(function: Callable[..., Any], known: list[str], given: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            hint = suggestion(name, known) or f" valid: {', '.join(known)}."
            label = function.__qualname__.removesuffix(".__init__")
            raise TypeError(f"{label}() has no argument `{name}`;{hint}")


def _door(function: Callable[P, R], *, gradients: bool) -> Callable[P, R]:
    parameters = inspect.signature(function).parameters
    known = [name for name in parameters if name not in ("self", "cls")]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    flags = {name for name, p in parameters.items() if isinstance(p.default, bool)}
    checks: dict[str, Callable[[str, Any], Any]] = dict.fromkeys(flags, boolean)
    checks |= {name: check for name, check in OF_ALL_DOORS.items() if name in known}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not takes_any:
            _check_keywords(function, known, kwargs)
        kwargs.update({name: _unpacked(value) for name, value in kwargs.items()})
        for name in kwargs:
            if name in checks:
                checks[name](name, kwargs[name])
        with own_modes(gradients=gradients), np.errstate(**USUAL):
            return function(*args, **kwargs)

    return checked


def _unpacked(value: Any) -> Any:
    """Return the integer that an array of no axes holds; other values as they are."""
    whole = getattr(value, "ndim", None) == 0 and "int" in str(getattr(value, "dtype", ""))
    return int(value) if whole else value


def one_of(name: str, value: Any, options: Iterable[str]) -> Any:
    """Return `value` if it is one of `options`, else raise a `ValueError` that lists them."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(o) for o in options)
        hint = suggestion(value, options)
        raise ValueError(f"`{name}` must be one of {listed}; got {value!r}.{hint}")
    return value


def positive_int(name: str, value: Any, *, least: int = 1) -> int:
    """Return `value` as an int of at least `least` that fits in 64 bits, else raise."""
    number = _integer(name, value)
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}; got {number}.")
    if number > LARGEST:
        raise ValueError(f"`{name}` must be at most {LARGEST}, 2**63 - 1; got {number}.")
    return number


def seed_of(random_seed: Seed) -> int:
    """Return a seed as an int that is not negative, of any length, else raise.

    Takes an int, a numpy integer, a `SeedSequence`, whose stream the int stands for, or the digits
    of a seed that is too long for a file's integers, as results keep it. None gives a fresh one.
    """
    if random_seed is None:
        return secrets.randbits(32)
    if isinstance(random_seed, np.random.SeedSequence):
        return int.from_bytes(random_seed.generate_state(4, np.uint32).tobytes(), "little")
    if isinstance(random_seed, str) and random_seed.isdecimal():
        return int(random_seed)
    if not hasattr(random_seed, "__index__"):
        raise TypeError(f"`random_seed` must be an integer or a SeedSequence; got {random_seed!r}.")
    number = _integer("random_seed", random_seed)
    if number < 0:
        raise ValueError(f"`random_seed` must be at least 0; got {number}.")
    return number


def kept_seed(number: int) -> int | str:
    """Return a seed as a file can keep it: itself where it fits in 64 bits, else its digits."""
    return number if number <= LARGEST else str(number)


def torch_seed(number: int) -> int:
    """Return a seed for torch, which takes 64 bits: itself where it fits, else one made of it."""
    if number <= LARGEST:
        return number
    return int(np.random.SeedSequence(number).generate_state(1, np.uint64)[0] >> 1)


def boolean(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False; got {value!r}.")
    return bool(value)


def _integer(name: str, value: Any) -> int:
    """Return what numbers something, else raise: no boolean, no fraction, no array of several."""
    try:
        if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
            raise TypeError
        return int(value.__index__())
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise TypeError(f"`{name}` must be an integer; got {value!r}.") from None


def real_between(
    name: str, value: Any, *, above: float, upto: float = float("inf"), strict: bool = False
) -> float:
    """Return `value` as a float in (above, upto], or (above, upto) if `strict`; else raise."""
    number = _real(name, value)
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
    number = _real(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"`{name}` must be finite and not negative; got {number:g}.")
    return number


def _real(name: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise TypeError(f"`{name}` must be a number; got {value!r}.") from None


def optional_boolean(name: str, value: Any) -> bool | None:
    """Return `value` if it is True, False or None, else raise."""
    return None if value is None else boolean(name, value)


def is_a(name: str, value: Any, kind: type, hint: str = "") -> Any:
    """Return `value` if it is of a kind, else raise a `TypeError` that says what came."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__}; got {type(value).__name__}.{hint}")
    return value


def check_function(name: str, value: Any, what: str) -> None:
    """Raise a `TypeError` unless a function is given; a class is none."""
    if isinstance(value, type):
        raise TypeError(f"`{name}` must {what}; got the class {value.__name__}.")
    if not callable(value):
        raise TypeError(f"`{name}` must {what}; got {type(value).__name__}.")


def names_of(name: str, value: Any, what: str = "name") -> list[str]:
    """Return one name, or several in a list or an array of one axis, as a list; else raise."""
    several = isinstance(value, (list, tuple)) or (
        hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1
    )
    given = list(value) if several else [value]
    for one in given:
        if not isinstance(one, str):
            raise TypeError(f"`{name}` must be a {what} or a list of them; got {one!r}.")
    return [str(one) for one in given]


def workers(name: str, value: Any) -> int | None:
    """Return a number of workers as joblib takes it, None for its own choice, else raise."""
    if value is None:
        return None
    number = _integer(name, value)
    if number == 0 or abs(number) > LARGEST:
        raise ValueError(f"`{name}` must be a number of workers, -1 for one a core; got {number}.")
    return number


OF_ALL_DOORS: dict[str, Callable[[str, Any], Any]] = {
    "n_jobs": workers,
    "log_likelihood": optional_boolean,
}
