"""A reward less a tax: another world for the same tastes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mfgppl._arguments import strict_keywords, suggestion
from mfgppl.data.space import StateSpace
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.linear import feature_values
from mfgppl.reward.preferences import Preferences
from mfgppl.reward.program import RewardProgram
from mfgppl.reward.source import reward_source


@strict_keywords
def taxed(reward: RewardProgram, tax: Any) -> RewardProgram:
    """Return a reward program less a tax that agents pay; a negative tax is a subsidy.

    Parameters
    ----------
    reward : callable
        A reward program.
    tax : mapping of state to number, callable, str or array
        In reward units: by state label, the others free (of a product space by tuples of labels,
        or as the game prints them);
        or a function of the program's inputs `x`, which may answer the crowd; or the name of an
        input; or an array that broadcasts to (T, S, A).

    Returns
    -------
    callable
        A reward program with the same latent sites.

    Raises
    ------
    TypeError
        If the reward is no function.
    ValueError
        Where the program runs: if the tax names a state that the game lacks.

    Examples
    --------
    >>> toll = taxed(lambda x: -x.density, {"bridge": 0.5})
    """
    if not callable(reward):
        raise TypeError(f"`reward` must be a reward program; got {type(reward).__name__}.")

    def after_tax(x: RewardInputs) -> Any:
        due = _by_state(tax, x) if isinstance(tax, Mapping) else feature_values(tax, x)
        value = reward(x)
        if isinstance(value, Preferences):
            return replace(value, reward=value.reward - due)
        # what is no reward goes on to where rewards are checked
        return value - due if isinstance(value, (Tensor, int, float)) else value

    words = reward_source(tax).strip() if callable(tax) else repr(tax)
    after_tax.__doc__ = "A reward less a tax."
    after_tax.source = f"{reward_source(reward)}\nless {words}"  # type: ignore[attr-defined]
    return after_tax


def _by_state(tax: Mapping[Any, Any], x: RewardInputs) -> Tensor:
    """Return the tax (1, S, 1) of states that are named as the game prints them, or by a tuple."""
    space = x.game.space
    labels, tuples = list(space.labels), _tuples(space)
    for label in tax:
        if label not in labels and label not in tuples:
            raise ValueError(
                f"`tax` names the state {label!r}, which is not one of the game's."
                f"{suggestion(label, labels)}"
            )
        if label in tuples and labels[tuples.index(label)] in tax:
            raise ValueError(f"`tax` names the state {label!r} twice, as a tuple and as text.")
    due = [
        float(tax.get(label, tax.get(values, 0.0)))
        for label, values in zip(labels, tuples, strict=True)
    ]
    return torch.tensor(due, dtype=torch.float64)[None, :, None]


def _tuples(space: StateSpace) -> list[tuple[Any, ...]]:
    """Return each state's labels along the coordinates."""
    axes = list(space.coordinates.values())
    return [tuple(axis[k] for axis, k in zip(axes, row, strict=True)) for row in space.codes.T]
