"""What a model asks of a panel beside its game, and the flow that it reads from it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl.data.orders import bins_of
from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.flat_flows import uniform_flow
from mfgppl.game import MeanFieldGame

FLOWS = ["empirical", "equilibrium"]  # that have a name


def check_panel(panel: Panel, game: MeanFieldGame) -> None:
    """Raise a `ValueError` where times or bins are called otherwise than in the game."""
    _check_periods(panel, game)
    _check_centres(panel, game)


def _check_periods(panel: Panel, game: MeanFieldGame) -> None:
    """Raise a `ValueError` where the game calls times otherwise than the panel."""
    ours, theirs = game.periods, panel.periods
    if ours is not None and (ours.first, ours.clock) != (theirs.first, theirs.clock):
        raise ValueError(
            f"`horizon` calls the first times {list(ours[:3])}, the panel {list(theirs[:3])}; give "
            "the game horizon=panel.periods."
        )


def _check_centres(panel: Panel, game: MeanFieldGame) -> None:
    """Raise a `ValueError` where bins of game and panel have one name and two centres."""
    theirs = bins_of(panel.space)
    for name, ours in bins_of(game.space).items():
        if name in theirs and ours.centres != theirs[name].centres:
            raise ValueError(
                f"the bins of {name!r} have other centres in the game than in the panel; give the "
                f"game the panel's labels, panel.space.coordinates[{name!r}]."
            )


def needs_crowd(panel: Panel, what: str) -> None:
    """Raise a `ValueError` if agents have few neighbours each, of whom there is no equilibrium."""
    names = list(panel.exposures) if isinstance(panel, Trajectories) else []
    if names:
        raise ValueError(
            f"{what} needs a crowd that many make up; the state coordinate {names[0]!r} says what "
            "an agent's own few neighbours do, of whom no flow averages out and no equilibrium is "
            "defined. Fit along the observed flow, and simulate on the network "
            "(mfgppl.networks.simulate)."
        )


def flow_of(panel: Panel, game: MeanFieldGame) -> np.ndarray:
    """Return the empirical flow of a panel as a game takes it, (T, S), or (T, S, A) if joint.

    Raises
    ------
    ValueError
        If nobody is seen at some time. Callers add the remedy, which is theirs.
    """
    try:
        return panel.occupancy() if game.joint else panel.mean_field()
    except ValueError as error:
        raise ValueError(str(error).partition("; give `prior_count`")[0]) from None


def shows_flow(panel: Panel, game: MeanFieldGame) -> bool:
    """Return whether agents are seen at each of a game's times."""
    seen = panel.counts.actions.sum(-1) if game.joint else panel.visits[: panel.horizon]
    return panel.horizon == game.shape[0] and bool((seen.sum(-1) > 0).all())


def flow_faced(panel: Panel, game: MeanFieldGame, mean_field: Any, *, likelihood: str) -> Tensor:
    """Return the flow that agents face, or where the search for the equilibrium's begins.

    Parameters
    ----------
    panel : Panel
        In the game's order.
    game : MeanFieldGame
        The game.
    mean_field : str or array
        As a model takes it.
    likelihood : str
        The model's.

    Raises
    ------
    ValueError
        If the panel shows no such flow, or it has no likelihood.
    """
    T = game.shape[0]
    if isinstance(mean_field, str) and mean_field not in FLOWS:
        raise ValueError(
            "`mean_field` must be 'empirical', 'equilibrium' or an array (T, S); got "
            f"{mean_field!r}."
        )
    if panel.horizon > T:
        raise ValueError(
            f"the panel has {panel.horizon} decision times, more than the horizon {T}."
        )
    if not isinstance(mean_field, str):
        return game.check_flow("mean_field", mean_field)
    if mean_field == "empirical":
        if panel.horizon != T:
            raise ValueError(
                f"the panel has {panel.horizon} decision times and the game a horizon of "
                f"{T}; make them equal, or pass `mean_field` as an array (T, S)."
            )
        return _own_flow(panel, game)
    if likelihood != "causal":
        raise ValueError(
            "mean_field='equilibrium' needs likelihood='causal': the equilibrium is one of "
            "agents who act by the causal law."
        )
    needs_crowd(panel, "mean_field='equilibrium'")
    if shows_flow(panel, game):
        return _own_flow(panel, game)
    return torch.from_numpy(uniform_flow(game)).reshape(game.flow_shape)


def _own_flow(panel: Panel, game: MeanFieldGame) -> Tensor:
    """Return a panel's flow, else say what else to give."""
    try:
        return torch.as_tensor(flow_of(panel, game))
    except ValueError as error:
        way = "occupancy" if game.joint else "mean_field"
        raise ValueError(
            f"{error}; give it, say mean_field=panel.{way}(prior_count=1.0)."
        ) from None
