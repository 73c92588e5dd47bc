"""What a period adds to a reward, for all agents alike: effects that sum to zero over time."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.linalg
import torch
from torch import Tensor

from mfgppl._arguments import is_a, names_of, suggestion
from mfgppl.data.space import text_labels
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs

Entries = tuple[tuple[str, tuple[Any, ...]], ...]  # axes and their labels


def period_effects(
    x: RewardInputs,
    name: str,
    prior: dist.Distribution,
    *,
    by: str | Sequence[str] | None = None,
) -> Tensor:
    """Sample one effect per period, which sum to zero over time.

    Added to a reward they are foreseen by the agents, as a season is; as the `shock` of
    `Preferences` they are not. A term that is the same for
    all actions at a time changes no choice, so an effect multiplies an action, as in
    `month * (x.action == "raise")`, or differs `by="action"`.

    Parameters
    ----------
    x : RewardInputs
        The inputs of the reward program.
    name : str
        The latent site. It holds coordinates of the effects in an orthonormal basis of what sums to
        zero, no effects themselves (Helmert's: the mean of the periods before against the k-th):
        T-1 of them along its dimension "name_contrast", with labels as "before vs 1973". Types come
        before as dimensions with their labels, and by action A-1 contrasts of actions after,
        "name_action_contrast". Reports and `mfg.results.summary(fit, model=model)` give the
        effects.
    prior : Distribution
        Of each coordinate, a number. Under `Normal(0, spread)` each effect has the standard
        deviation `spread * sqrt(1 - 1/T)`, and two have the correlation `-1 / (T - 1)`; `spread`
        may be latent.
    by : "action", a type, or a list of them, optional
        One set of effects for each action, which sum to zero over actions too; for each label of a
        type; or for each combination.

    Returns
    -------
    Tensor, shape (T, 1, 1)
        Reward units; (T, 1, A) by action, (C, T, 1, 1) by type, (C, T, 1, A) by both.

    Raises
    ------
    ValueError
        If the game has fewer than two periods, or `by` is neither "action" nor a type of the game.
    TypeError
        If the prior is no distribution of a number.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def reward(x):
    ...     spread = pyro.sample("spread", dist.HalfNormal(1.0))
    ...     month = period_effects(x, "month", dist.Normal(0.0, spread))
    ...     slope = period_effects(x, "slope", dist.Normal(0.0, spread))
    ...     return (month + slope * x.price) * (x.action == "raise")
    """
    is_a("x", x, RewardInputs, " Call it in a reward program, with its inputs.")
    is_a("name", name, str)
    shape = getattr(prior, "batch_shape", None), getattr(prior, "event_shape", None)
    if not hasattr(prior, "log_prob") or shape != ((), ()):
        raise TypeError(
            f"`prior` must be the prior of one number, as dist.Normal(0.0, 1.0); got {prior!r}."
        )
    T = x.game.shape[0]
    if T < 2:
        raise ValueError(f"period effects need two decision times at least; the game has {T}.")
    asked, types = [] if by is None else names_of("by", by), x.game.space.types
    for axis in asked:
        known = ["action", *types]
        if axis not in known:
            raise ValueError(f"`by` must be of {known}; got {axis!r}.{suggestion(axis, known)}")
    labels = [axis for axis in asked if axis != "action"]
    known_axes = [(axis, x.game.space.coordinates[axis]) for axis in labels]
    contrasts = [(f"{name}_contrast", _against(_periods_of(x.game)))]
    if "action" in asked:
        contrasts.append((f"{name}_action_contrast", _against(text_labels(x.game.actions))))
    each = _coordinates(name, prior, [*known_axes, *contrasts])
    if "action" in asked:
        effects = centred(T).T @ each @ centred(x.game.n_actions)
    else:
        effects = (each @ centred(T))[..., None]
    if labels:
        effects = effects[tuple(getattr(x, axis).codes.reshape(-1) for axis in labels)]
    return effects.unsqueeze(-2)


def effects_of_contrasts(
    name: str, entries: Entries | None, game: MeanFieldGame
) -> tuple[Entries, np.ndarray] | None:
    """Return what the effects are called that a site has contrasts of, and their sum of these.

    Parameters
    ----------
    name : str
        The site.
    entries : tuple of (str, tuple), or None
        Of what its entries are, and their labels, axis by axis.
    game : MeanFieldGame
        The game.

    Returns
    -------
    entries, weights
        Axes with their labels, periods and actions in place of contrasts, and the weights
        (n_effects, n_contrasts) of flat contrasts in flat effects; None of another site.
    """
    axes = dict(entries or ())
    if f"{name}_contrast" not in axes:
        return None
    found: list[tuple[str, tuple[Any, ...]]] = []
    weights: np.ndarray = np.ones((1, 1))
    for axis, labels in axes.items():
        if axis == f"{name}_contrast":
            axis, labels = "period", tuple(_periods_of(game))
            weights = np.kron(weights, centred(game.shape[0]).numpy().T)
        elif axis == f"{name}_action_contrast":
            axis, labels = "action", tuple(text_labels(game.actions))
            weights = np.kron(weights, centred(game.n_actions).numpy().T)
        else:
            weights = np.kron(weights, np.eye(len(labels)))
        found.append((axis, labels))
    return tuple(found), weights


def _periods_of(game: MeanFieldGame) -> list[Any]:
    return list(range(game.shape[0]) if game.periods is None else game.periods.labels)


def _against(labels: Sequence[Any]) -> list[str]:
    """Name the contrasts of labels in order: the mean of those before against one."""
    return [f"before vs {label}" for label in labels[1:]]


def _coordinates(name: str, prior: dist.Distribution, axes: Sequence[tuple[str, Any]]) -> Any:
    """Sample independent coordinates with labelled axes."""
    made = prior.expand([len(labels) for _, labels in axes]).to_event(len(axes))
    made.entries = tuple((axis, tuple(labels)) for axis, labels in axes)
    return pyro.sample(name, made).to(torch.float64)


@functools.cache
def centred(n: int) -> Tensor:
    """Return an orthonormal basis (n-1, n) of the vectors that sum to zero."""
    if n == 1:
        return torch.zeros(0, 1, dtype=torch.float64)
    return torch.from_numpy(np.ascontiguousarray(scipy.linalg.helmert(n)))
