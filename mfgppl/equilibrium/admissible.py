"""What a game admits: the actions and steps of a panel against its availability and dynamics."""

import numpy as np
import torch
from torch import Tensor

from mfgppl.control.steps import as_steps
from mfgppl.data.panel import Panel
from mfgppl.data.space import plain_label
from mfgppl.data.trajectories import Trajectories
from mfgppl.exceptions import DataError, Fault
from mfgppl.game import MeanFieldGame


def check_moves(panel: Panel, game: MeanFieldGame, transition: Tensor | None) -> None:
    """Raise where the panel takes actions, or steps if their table is known, that are ruled out."""
    faults = []
    allowed = game.available.expand(game.shape)[: panel.horizon].numpy()
    forbidden = panel.counts.actions * ~allowed
    if forbidden.any():
        examples = tuple(
            f"{_who(panel, t, s, a)}time={panel.time_label(t)}, state={panel.space.labels[s]!r}, "
            f"action={panel.actions[a]!r}"
            for t, s, a in np.argwhere(forbidden)[:3]
        )
        remedy = "correct the rows, or `available` in the game"
        what = "action not available in its state"
        faults.append(Fault(what, int(forbidden.sum()), examples, remedy))
    faults += _changed_types(panel)
    if transition is not None:
        faults += _impossible_steps(panel, game, transition)
    if faults:
        raise DataError(faults)


def _impossible_steps(panel: Panel, game: MeanFieldGame, transition: Tensor) -> list[Fault]:
    """Return the fault of steps that have probability zero, if there are any."""
    steps, n = panel.transition_counts()
    if game.tables_by_time:  # the step after the last decision has no table of its own
        n = n[steps[:, 0] < game.n_steps]
        steps = steps[steps[:, 0] < game.n_steps]
    along = as_steps(transition.detach(), game.shape[0])
    impossible = (along.probability(torch.as_tensor(steps)) == 0).numpy()
    impossible &= ~_changes_type(panel, steps)  # a fault of its own
    remedy = "correct the rows, or `transition` in the game"
    what = "step of probability zero under the game"
    return _steps_at_fault(what, panel, steps[impossible], n[impossible], remedy)


def _changed_types(panel: Panel) -> list[Fault]:
    """Return the fault of agents whose types change, if there are any."""
    steps, n = panel.transition_counts()
    changes = _changes_type(panel, steps)
    remedy = "correct the rows; what may change in an agent is a state, not a type"
    what = "an agent changes its type"
    return _steps_at_fault(what, panel, steps[changes], n[changes], remedy)


def _changes_type(panel: Panel, steps: np.ndarray) -> np.ndarray:
    """Return which steps, rows (t, s, a, x), lead from one combination of types to another."""
    each = panel.space.size // panel.space.n_cells
    changes: np.ndarray = steps[:, 1] // each != steps[:, 3] // each
    return changes


def _steps_at_fault(
    what: str, panel: Panel, steps: np.ndarray, n: np.ndarray, remedy: str
) -> list[Fault]:
    """Return a fault of some steps, none where there are no such steps."""
    if not len(steps):
        return []
    states = panel.space.labels
    examples = tuple(
        f"time={panel.time_label(t)}: {states[s]!r} to {states[x]!r} by {panel.actions[a]!r}"
        for t, s, a, x in steps[:3]
    )
    return [Fault(what, int(n.sum()), examples, remedy)]


def _who(panel: Panel, time: int, state: int, action: int) -> str:
    """Name the first agent who does something, if the panel knows."""
    if not isinstance(panel, Trajectories):
        return ""
    there = (panel.time == time) & (panel.state == state) & (panel.action == action)
    return f"agent={plain_label(panel.agents[panel.trajectory[there.argmax()]])!r}, "
