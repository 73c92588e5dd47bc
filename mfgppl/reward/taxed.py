"""A reward less a tax: another world for the same tastes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mfgppl._arguments import strict_keywords, suggestion
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, feature_values, reward_source


@strict_keywords
def taxed(reward: RewardProgram, tax: Any) -> RewardProgram:
    """Return a reward program less a tax that agents pay; a negative tax is a subsidy.

    Parameters
    ----------
    reward : callable
        A reward program.
    tax : mapping of state to number, callable, str or array
        In reward units: by state label, the others free (of a product space by tuples of labels);
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

    def after_tax(x: RewardInputs) -> Tensor:
        due = _by_state(tax, x) if isinstance(tax, Mapping) else feature_values(tax, x)
        return torch.as_tensor(reward(x), dtype=torch.float64) - due

    words = reward_source(tax).strip() if callable(tax) else repr(tax)
    after_tax.__doc__ = "A reward less a tax."
    after_tax.source = f"{reward_source(reward)}\nless {words}"  # type: ignore[attr-defined]
    return after_tax


def _by_state(tax: Mapping[Any, Any], x: RewardInputs) -> Tensor:
    labels = list(x._game.space.labels)
    for label in tax:
        if label not in labels:
            raise ValueError(
                f"`tax` names the state {label!r}, which is not one of the game's."
                f"{suggestion(label, labels)}"
            )
    due = [float(tax.get(label, 0.0)) for label in labels]
    return torch.tensor(due, dtype=torch.float64)[None, :, None]
