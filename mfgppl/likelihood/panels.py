"""What a model asks of a panel beside its game, and the flow that it reads from it."""

import numpy as np

from mfgppl.data.orders import bins_of
from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.game import MeanFieldGame


def check_periods(game: MeanFieldGame, panel: Panel) -> None:
    """Raise a `ValueError` where the game calls times otherwise than the panel."""
    ours, theirs = game.periods, panel.periods
    if ours is not None and (ours.first, ours.clock) != (theirs.first, theirs.clock):
        raise ValueError(
            f"`horizon` calls the first times {list(ours[:3])}, the panel {list(theirs[:3])}; give "
            "the game horizon=panel.periods."
        )


def check_centres(game: MeanFieldGame, panel: Panel) -> None:
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
