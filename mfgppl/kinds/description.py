"""Who is of which kind, and what agents of each kind do."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.data.space import state_labels, text_labels
from mfgppl.data.trajectories import Trajectories
from mfgppl.density.of_model import density_of
from mfgppl.density.who_is_who import effective_nodes, kinds_table, node_shares
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.policies import Fit, values_of

CERTAIN = 0.9  # probability above which an agent counts as known


@strict_keywords
def probabilities(model: TrajectoryModel, fit: Fit, *, draws: int = 200) -> pd.DataFrame:
    """Return the posterior probability of each agent's kind.

    Parameters
    ----------
    model : TrajectoryModel
        A model whose program has agent-level sites.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, a point estimate, or values by site.
    draws : int
        Draws to use at most, evenly spaced; the mean over them is returned.

    Returns
    -------
    DataFrame
        One row per agent, one column per kind, whose sums over a row are 1. With several sites of
        kinds the columns are all combinations.

    Raises
    ------
    ValueError
        If the program has no site of kinds.
    """
    found = kinds_table(model, _shares(model, fit, draws, "probabilities"))
    if found is None:
        raise ValueError(
            "the program has no categorical site inside `with x.agents:`, and so no kinds; what it "
            "has are random coefficients, whose nodes mfg.kinds.describe summarises."
        )
    return found


class Description(NamedTuple):
    """What agents of each kind do.

    Attributes
    ----------
    kinds : DataFrame or None
        One row per kind: `agents`, how many are expected; `certain`, how many agents have it with
        a probability above 0.9; `moves`, decisions per agent that change the action; and the share
        of each action among the decisions of agents of that kind. None without kinds.
    states : DataFrame or None
        One row per kind: the share of the decisions of its agents that are made in each state.
    coefficients : DataFrame or None
        One row per random coefficient: `median_nodes`, the number of nodes over which the median
        agent is spread, `1 / sum q^2`, and `few`, the share of agents below 2, for whom the nodes
        are too few.
    """

    kinds: pd.DataFrame | None
    states: pd.DataFrame | None
    coefficients: pd.DataFrame | None

    def __repr__(self) -> str:
        tables = [t for t in (self.kinds, self.states, self.coefficients) if t is not None]
        return "\n\n".join(t.to_string(float_format=lambda v: f"{v:.3g}") for t in tables)


@strict_keywords
def describe(model: TrajectoryModel, fit: Fit, *, draws: int = 200) -> Description:
    """Say what agents of each kind do, by the shares in which each agent is of it.

    Parameters
    ----------
    model, fit, draws
        As in `probabilities`.

    Returns
    -------
    Description
        Tables of kinds, of the states in which they decide, and of random coefficients.
    """
    shares = _shares(model, fit, draws, "describe")
    table, panel = kinds_table(model, shares), model.panel
    assert isinstance(panel, Trajectories)
    kinds = states = None
    if table is not None:
        kinds, states = _of_kinds(model, panel, table)
    return Description(kinds, states, _of_coefficients(effective_nodes(model, shares)))


def _of_kinds(
    model: TrajectoryModel, panel: Trajectories, table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    game, weights = model.game, table.to_numpy()  # (n, K)
    acted = panel.action >= 0
    owner, n = panel.owner[panel.trajectory], len(weights)
    rows = weights[owner[acted]]
    of_action = np.eye(game.n_actions)[panel.action[acted]]
    by_action = rows.T @ of_action
    by_state = np.stack(
        [np.bincount(panel.state[acted], row, minlength=game.n_states) for row in rows.T]
    )
    pair = (np.diff(panel.trajectory) == 0) & acted[1:] & acted[:-1]
    changed = np.flatnonzero(pair & (np.diff(panel.action) != 0)) + 1
    moves = np.bincount(owner[changed], minlength=n)
    expected = weights.sum(0)
    several = np.maximum(expected, 1e-300)
    columns: dict[str, Any] = {
        "agents": expected,
        "certain": (weights > CERTAIN).sum(0),
        "moves": moves @ weights / several,
    }
    total = np.maximum(by_action.sum(1, keepdims=True), 1e-300)
    names = text_labels(game.actions)
    columns |= dict(zip(names, (by_action / total).T, strict=True))
    labels = state_labels(game.space)
    return (
        pd.DataFrame(columns, table.columns),
        pd.DataFrame(by_state / total, table.columns, pd.Index(labels, name="state")),
    )


def _of_coefficients(found: pd.DataFrame | None) -> pd.DataFrame | None:
    if found is None:
        return None
    columns = {"median_nodes": found.median(), "few": (found < 2.0).mean()}
    return pd.DataFrame(columns).rename_axis("coefficient")


def _shares(model: TrajectoryModel, fit: Fit, draws: int, what: str) -> np.ndarray:
    """Return the mean posterior probabilities of agents' nodes (n_agents, N), else raise."""
    is_a("model", model, TrajectoryModel)
    positive_int("draws", draws)
    if model.nodes is None:
        raise ValueError(
            f"{what} needs a program with agent-level sites, declared inside `with x.agents:`; "
            "this one has none."
        )
    values, _ = values_of(model, fit, draws)
    density = density_of(model)
    return np.asarray(np.mean([node_shares(density, value) for value in values], axis=0))
