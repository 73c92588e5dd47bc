"""Who a crowd is made of: agents of one kind, or of several that nobody sees and that are types.

The start of a crowd of several kinds moves with the parameters, as their shares do:
`mu^k_0(s) = w_k(s) mu_0(s)`. What agents read is the sum over kinds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._keep import Keeper, keep
from mfgppl.equilibrium.exposures import Exposures
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.linearisation import AnyResponseMap, response_map_of
from mfgppl.equilibrium.moving_start import MovingStart
from mfgppl.equilibrium.recording import flat_values, recordings_of
from mfgppl.equilibrium.response import Equilibrium, soft_response
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.equilibrium.solution import Solution
from mfgppl.game import MeanFieldGame
from mfgppl.reward.kinds_as_types import check_site_names, pooled, typed_game, typed_program
from mfgppl.reward.nodes import Nodes
from mfgppl.reward.program import RewardProgram, bind, double_precision, nodes_of, ran
from mfgppl.reward.valued import at_start


class Population(Keeper):
    """The agents of a game, with kinds that nobody sees as types.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    nodes : Nodes, optional
        The values of its agent-level sites at parameters drawn, where it has any.

    Attributes
    ----------
    game : MeanFieldGame
        The game that is solved: the same, or the one in which nodes are types.
    reward : callable
        The program of that game.
    n_nodes : int
        Number of nodes N; 1 where agents are of one kind.
    """

    def __init__(self, game: MeanFieldGame, reward: RewardProgram, nodes: Nodes | None) -> None:
        self._game, self._reward = game, reward
        self.game, self.reward, self.n_nodes = game, reward, 1
        self._mixed = nodes is not None
        if nodes is not None:
            self.game, self.reward = typed_game(game, nodes), typed_program(game, reward)
            self.n_nodes = nodes.size

    def at(self, sites: Mapping[str, Any]) -> MeanFieldGame:
        """Return the game that is solved, with the start that it has at parameters by site.

        It is differentiable in these.
        """
        if not self._mixed:
            return self.game
        start = self.log_shares(sites).exp() * self._game.initial
        other = self.game.starting(start.reshape(-1))
        keep(other, recordings_of.__name__, lambda: recordings_of(self.game))
        return other

    def log_shares(self, sites: Mapping[str, Any]) -> Tensor:
        """Return log shares of nodes by first state (N, S) at parameters by site."""
        with double_precision(), pyro.validation_enabled(False):
            nodes = ran(bind(self._reward, sites), at_start(self._game)).nodes
        assert isinstance(nodes, Nodes)
        return nodes.log_weights

    def response_map(self, sites: Mapping[str, Any]) -> AnyResponseMap:
        """Return what agents do along a flow at parameters by site.

        Where it is recorded, `put` gives it others, and the start that goes with them.
        """
        game = self.at(sites)
        if not self._mixed or game.stationary:
            return response_map_of(game, self.reward, sites)
        return ResponseMap(game, self.reward, sites, start=self._start(sites))

    def _start(self, sites: Mapping[str, Any]) -> MovingStart:
        """Return the start as a function of flat parameters, recorded once."""
        parts = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in sites.items()}

        def log_shares(values: Tensor) -> Tensor:
            pieces = values.split([part.numel() for part in parts.values()])
            given = zip(parts.items(), pieces, strict=True)
            return self.log_shares({k: piece.reshape(part.shape) for (k, part), piece in given})

        def made() -> MovingStart:
            reads = np.tile(np.eye(self._game.n_cells), self.n_nodes)
            exposures = Exposures(reads, reads.T / self.n_nodes, None)
            initial = self._game.initial.numpy()
            return MovingStart(log_shares, initial, flat_values(parts).numpy(), exposures)

        return keep(self, "start", made)

    def response(self, sites: Mapping[str, Any], flow: Tensor) -> Equilibrium:
        """Return the soft best response to a flow over nodes, differentiable in parameters."""
        given = bind(self.reward, sites)
        return soft_response(self.at(sites), given, flow, temperature=self.game.temperature)

    def equilibrium(self, sites: Mapping[str, Any], mean_field: Tensor, **options: Any) -> Solution:
        """Solve for the equilibrium at parameters by site, from a flow of all nodes together."""
        return solve_equilibrium(
            self.at(sites), self.reward, parameters=sites, mean_field=self.spread(mean_field),
            **options,
        )  # fmt: skip

    def summed(self, flow: Tensor) -> Tensor:
        """Return a flow over nodes as one over the states of all together, their sum."""
        return pooled(self._game, flow) if self._mixed else flow

    def spread(self, flow: Tensor) -> Tensor:
        """Return a flow over nodes of which a flow is the sum: as many of each node."""
        whole = flow[:, None] / self.n_nodes
        lead = (len(flow), self.n_nodes)
        return whole.expand(*lead, *flow.shape[1:]).reshape(self.game.flow_shape)


def check_mixture(game: MeanFieldGame, reward: RewardProgram, nodes: Nodes) -> None:
    """Raise a `ValueError` where agents of several kinds have no equilibrium here."""
    check_site_names(game, nodes)
    site = nodes.sites[-1].name
    if any(own.agents is not None for own in nodes.sites):
        raise ValueError(
            f"{site!r} is sampled for each agent, and with mean_field='equilibrium' the crowd is "
            "made of shares, not of the agents seen: use `with x.agents:`, or the observed flow."
        )
    if not game.meets.by_mass and game.crowd_moves_dynamics:
        raise ValueError(
            f"the program has the agent-level site {site!r}, the crowd moves the dynamics, and "
            "agents meet by an exposure matrix; with mean_field='equilibrium' one of these must "
            "go: use the observed flow, or `meets` by types."
        )
    if not torch.equal(nodes.log_weights, _elsewhere(game, reward).log_weights):
        raise ValueError(
            f"the shares of {site!r} read the crowd; with mean_field='equilibrium' they say where "
            "it begins, and may read x.first_state and types alone."
        )


def _elsewhere(game: MeanFieldGame, reward: RewardProgram) -> Nodes:
    """Return the nodes at the same parameters, drawn, along a crowd that is not the observed."""
    states = torch.arange(1.0, game.initial.numel() + 1, dtype=torch.float64)
    nodes = nodes_of(reward, at_start(game.starting(states / states.sum())))
    assert nodes is not None
    return nodes
