"""Worlds from which panels are drawn: a game in equilibrium at known parameters."""

from typing import Any, NamedTuple

from torch import Tensor

from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.equilibrium.simulation import simulate
from mfgppl.game import MeanFieldGame
from mfgppl.reward.kinds_as_types import as_types
from mfgppl.reward.program import RewardProgram, nodes_of
from mfgppl.reward.valued import at_start


class World(NamedTuple):
    """A game in equilibrium.

    Attributes
    ----------
    game : MeanFieldGame
        The game; kinds that are not seen are types here.
    equilibrium : Equilibrium
        Of that game.
    unseen : tuple of str
        The types that no panel shows.
    """

    game: MeanFieldGame
    equilibrium: Equilibrium
    unseen: tuple[str, ...]

    @property
    def mean_field(self) -> Tensor:
        """The flow of the whole crowd as panels show it, (T, S), or (T, S, A) in a joint game."""
        flow = self.equilibrium.mean_field
        n = 1
        for name in self.unseen:
            n *= len(self.game.space.coordinates[name])
        return flow.reshape(len(flow), n, -1, *flow.shape[2:]).sum(1)

    def panel(self, *, n_agents: int, random_seed: int, n_times: int | None = None) -> Trajectories:
        """Draw a balanced panel of agents; see `simulate`."""
        drawn = simulate(
            self.game, self.equilibrium.policy, self.equilibrium.mean_field, n_agents=n_agents,
            random_seed=random_seed, n_times=n_times,
        )  # fmt: skip
        for name in self.unseen:
            drawn = drawn.drop_type(name)
        return drawn


def world_of(game: MeanFieldGame, reward: RewardProgram, parameters: Any) -> World:
    """Return the equilibrium at parameters, else raise `ConvergenceError`."""
    nodes = nodes_of(reward, at_start(game))
    if nodes is None:
        found = solve_equilibrium(game, reward, parameters=parameters, throw=True)
        return World(game, found.value, ())
    of_types, bound = as_types(game, reward, parameters)
    found = solve_equilibrium(of_types, bound, throw=True)
    return World(of_types, found.value, tuple(site.name for site in nodes.sites))
