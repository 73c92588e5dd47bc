"""What a program may declare: a reward, an end, shocks, patience, noise and lapses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import known_keywords
from mfgppl.reward.inputs import RewardInputs


@dataclass(frozen=True)
class Preferences:
    """What a program may return in place of a reward table.

    With types each part has an axis for them in front, as the inputs have. What is given here
    stands in place of the game's constants. Parts may be latent, or numbers.

    Parameters
    ----------
    reward : Tensor or number
        The reward of each decision, which broadcasts to (T, S, A); reward units.
    terminal : Tensor or number, optional
        What a state is worth after the last decision, which broadcasts to (1, S, 1); reward units.
        By default nothing is.
    shock : Tensor or number, optional
        What agents see when they act and did not foresee, which broadcasts to (T, S, A); reward
        units. One that is latent sums to zero over time, as `period_effects` do.
    discount : Tensor or number in (0, 1], optional
        Weight of the next period: one number, or one for each type.
    temperature : Tensor or number, positive, optional
        Size of the noise, in reward units: one number, or one for each type.
    lapse : Tensor or number in [0, 1], optional
        Share of decisions that are taken at random, all open actions alike, which broadcasts to
        (T, S, 1). One who always lapses is a random agent.

    Notes
    -----
    `Q0_t = r_t + discount P_t V_{t+1}` with `V_T` the terminal value, `V_t = M(Q0_t)` by the game's
    law of behaviour, and `Q_t = Q0_t + shock_t`. The policy is `softmax(Q_t / temperature)` but for
    the lapses. The shock is not in V: nobody counts on it. What all expect of it is part of the
    reward; left free, the mean of a shock cancels the reward that is foreseen and the likelihood
    has no maximum.

    A terminal value is known up to a constant. Where dynamics differ by time the move after the
    last decision needs a table of its own: give the game T tables. A temperature is known where a
    weight of the reward is; a discount from how choices change as the end comes near, often weakly;
    lapses from actions that are taken although they are much the worst.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def agent(x):
    ...     end = pyro.sample("end", x.price.each(dist.Normal(0.0, 1.0)))
    ...     lapse = pyro.sample("lapse", dist.Beta(1.0, 20.0))
    ...     return Preferences(x.price * 0.3, terminal=end[x.price.codes], lapse=lapse)
    """

    reward: Any
    terminal: Any = None
    shock: Any = None
    discount: Any = None
    temperature: Any = None
    lapse: Any = None

    @property
    def parts(self) -> dict[str, Any]:
        """What is declared, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in named.items() if v is not None}


Preferences.__init__ = known_keywords(Preferences.__init__)  # type: ignore[method-assign]


def check_parts(preferences: Preferences, inputs: RewardInputs) -> None:
    """Raise where a part is no tensor, has a wrong shape or value, or has no place in the game.

    Raises
    ------
    TypeError
        If a part is neither a tensor of real numbers nor a real number.
    ValueError
        If its shape does not broadcast, a discount, temperature or lapse is out of its range, or a
        stationary game is given a terminal value, a shock or constants by type.
    """
    parts = {"reward": preferences.reward} | preferences.parts
    for name, part in parts.items():
        called = "terminal value" if name == "terminal" else name
        if not _is_real(part):
            held = f" of {part.dtype}" if isinstance(part, (Tensor, np.ndarray)) else ""
            raise TypeError(
                f"the {called} that the program returns must be a tensor of real numbers; got "
                f"{type(part).__name__}{held}."
                + (" Does it end with `return`?" if part is None else "")
            )
        value = torch.as_tensor(part, dtype=torch.float64).detach()
        _check_shape(name, called, value, inputs)
        if name in RANGES:
            _check_range(name, value, stationary=inputs.game.stationary)
        elif name != "reward" and not bool(torch.isfinite(value).all()):
            raise ValueError(f"the {called} that the program returns is not finite everywhere.")
    if inputs.game.stationary:
        _check_endless(parts)


def _is_real(part: Any) -> bool:
    """Return whether a part is a tensor of real numbers, or a real number."""
    if isinstance(part, Tensor):
        return not part.is_complex()
    return isinstance(part, (int, float, np.ndarray, np.number)) and (
        np.asarray(part).dtype.kind in "biuf"
    )


def _check_shape(name: str, called: str, value: Tensor, inputs: RewardInputs) -> None:
    """Raise a `ValueError` where a part does not broadcast."""
    shape, axes = _shape(name, inputs)
    try:
        value.broadcast_to(shape)
    except RuntimeError:
        raise ValueError(
            f"the {called} must broadcast to {axes} = {tuple(shape)}; the program returned shape "
            f"{tuple(value.shape)}. {HINTS.get(name, HINTS['reward'])}"
        ) from None


def _check_range(name: str, value: Tensor, *, stationary: bool) -> None:
    """Raise a `ValueError` where a constant is out of its range."""
    inside, words, prior = RANGES[name]
    kept = inside(value)
    if name == "discount" and stationary:
        kept, words = kept & (value < 1), "above 0 and below 1 in a stationary game"
    wrong = value[~kept]
    if len(wrong):
        raise ValueError(
            f"the {name} that the program returns must be {words}; it has {wrong[0]:g}. Give its "
            f"site a prior that stays there, as {prior}."
        )


def _check_endless(parts: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where a part has no place in a stationary game."""
    if "terminal" in parts:
        raise ValueError("a stationary game has no last decision, and so no terminal value.")
    if "shock" in parts:
        raise ValueError("a stationary game has no periods, and so no shocks.")
    constants = (parts.get(name, 1.0) for name in ("discount", "temperature"))
    if any(torch.as_tensor(value).numel() > 1 for value in constants):
        raise ValueError(
            "a stationary game takes one discount and one temperature; got some by type."
        )


# what holds inside, that in words, and a prior whose draws do
RANGES: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "discount": (lambda v: (v > 0) & (v <= 1), "above 0 and at most 1", "Beta(9.0, 1.0)"),
    "temperature": (lambda v: (v > 0) & (v < torch.inf), "positive", "LogNormal(0.0, 1.0)"),
    "lapse": (lambda v: (v >= 0) & (v <= 1), "at least 0 and at most 1", "Beta(1.0, 20.0)"),
}
HINTS = {
    "reward": "Index the axes of a vector, as in w[:, None, None].",
    "terminal": "Index a vector by the states' labels, as in w[x.price.codes].",
    "discount": "Give one number, or one by type, as in w[x.size.codes].",
    "temperature": "Give one number, or one by type, as in w[x.size.codes].",
}


def _shape(name: str, inputs: RewardInputs) -> tuple[tuple[int, ...], str]:
    """Return what a part broadcasts to, and its axes in words."""
    *lead, T, S, _ = inputs.shape
    shapes = {
        "terminal": ((*lead, 1, S, 1), "1, S, 1"),
        "discount": ((*lead, 1, 1, 1), "1, 1, 1"),
        "temperature": ((*lead, 1, 1, 1), "1, 1, 1"),
        "lapse": ((*lead, T, S, 1), "T, S, 1"),
    }
    shape, axes = shapes.get(name, (inputs.shape, "T, S, A"))
    return shape, f"(type, {axes})" if lead else f"({axes})"


def spread(name: str, part: Any, inputs: RewardInputs) -> Tensor:
    """Return a part in full: all axes that it can have, (type, time, state, action) or fewer."""
    return torch.as_tensor(part, dtype=torch.float64).broadcast_to(_shape(name, inputs)[0])
