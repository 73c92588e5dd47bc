"""Which law a panel's trajectories have: of agents of one kind or several, along which flow."""

import numpy as np
import torch
from torch import Tensor

from mfgppl.data.panel import Counts, Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.action_counts import FixedFlow
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood, moves_seen
from mfgppl.likelihood.energy import EnergyLikelihood
from mfgppl.likelihood.histories import histories_of
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.stationary_games import StationaryLikelihood
from mfgppl.reward.nodes import Nodes

Law = FixedFlow | CoupledLikelihood
OfOneKind = CausalLikelihood | StationaryLikelihood | CoupledLikelihood


def causal_law(
    panel: Panel,
    counts: Counts,
    game: MeanFieldGame,
    transition: Tensor,
    *,
    nodes: Nodes | None,
    coupled: bool,
) -> Law:
    """Return the causal law of a panel.

    Parameters
    ----------
    panel : Panel
        In the game's order.
    counts : Counts
        Of the panel, over the game's times.
    game : MeanFieldGame
        The game.
    transition : Tensor
        The dynamics along the flow.
    nodes : Nodes or None
        Nodes of the agent-level sites, over which each trajectory is summed.
    coupled : bool
        Whether the flow is the equilibrium's.

    Raises
    ------
    ValueError
        If kinds need trajectories that the panel does not keep; or if the equilibrium needs dense
        dynamics, where the crowd moves them, and they are sparse.
    """
    one: OfOneKind
    given = transition, counts, game.discount, game.temperature
    if not coupled:
        one = StationaryLikelihood(*given) if game.stationary else CausalLikelihood(*given)
    else:
        one = CoupledLikelihood(*given, _moves(panel, game, transition), game.stationary)
    return one if nodes is None else _of_kinds(panel, game, one, nodes)


def energy_law(
    counts: Counts,
    game: MeanFieldGame,
    transition: Tensor,
    mean_field: Tensor,
    *,
    nodes: Nodes | None,
    by_type: bool,
) -> EnergyLikelihood:
    """Return Theorem 4's law of a panel, along a flow.

    Parameters
    ----------
    counts, game, transition, nodes
        As of `causal_law`.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow.
    by_type : bool
        Whether there is one partition function for all of a type who enter at a time.

    Raises
    ------
    ValueError
        If the program has agent-level sites.
    """
    if nodes is not None:
        raise ValueError(
            "likelihood='energy' knows agents of one kind; the reward program has the "
            f"agent-level site {nodes.sites[-1].name!r}: use likelihood='causal'."
        )
    flow = mean_field.sum(-1) if game.joint else mean_field
    entry = flow.numpy().copy()
    entry[0] = game.initial.numpy()
    if game.n_cells > 1:  # of each type
        by_cell = entry.reshape(len(entry), game.n_cells, -1)
        mass = by_cell.sum(-1, keepdims=True)
        entry = (by_cell / np.where(mass > 0, mass, 1.0)).reshape(entry.shape)
    n_groups = game.n_cells if by_type else 0
    return EnergyLikelihood(transition, counts, entry, n_groups, game.temperature)


def _moves(panel: Panel, game: MeanFieldGame, transition: Tensor) -> Tensor | None:
    """Return how often each move was seen, None where the crowd moves no dynamics."""
    if not game.crowd_moves_dynamics:
        return None
    if transition.layout != torch.strided:
        raise ValueError(
            "mean_field='equilibrium' needs a `transition` that returns dense tensors computed "
            "in torch where the crowd moves the dynamics; got scipy sparse matrices."
        )
    return moves_seen(*panel.transition_counts(), tuple(transition.shape))


def _of_kinds(panel: Panel, game: MeanFieldGame, one: OfOneKind, nodes: Nodes) -> KindsLikelihood:
    """Return the law of agents with sites of their own; raise if rows were not kept."""
    if not isinstance(panel, Trajectories):
        raise ValueError(
            f"the agent-level site {nodes.sites[-1].name!r} is summed over for each agent, which "
            f"needs the trajectories one by one; a {type(panel).__name__} does not keep them. Read "
            "the table with Trajectories.from_frame."
        )
    return KindsLikelihood(one, histories_of(panel, game.shape, nodes), nodes)
