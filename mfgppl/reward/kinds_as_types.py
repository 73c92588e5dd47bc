"""The game in which kinds that nobody sees are types, at given parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import is_a
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.nodes import Nodes
from mfgppl.reward.preferences import Preferences, spread
from mfgppl.reward.program import RewardProgram, bind, double_precision, ran
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import at_start


def as_types(
    game: MeanFieldGame, reward: RewardProgram, parameters: Any
) -> tuple[MeanFieldGame, RewardProgram]:
    """Return the game and program in which each agent-level site is a type.

    Agents of all kinds share one crowd, which they meet as before. Equilibria, simulated panels
    and counterfactuals of the game returned have an axis for the kinds.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program with agent-level sites.
    parameters : mapping of str to value, Series or PointEstimate
        A value for each latent site.

    Returns
    -------
    game : MeanFieldGame
        With a type for each such site, those declared last in front: labels count the kinds, or
        the nodes of a random coefficient. Its start is that of the game, in the shares that the
        program gives to kinds.
    reward : callable
        The program with its parameters fixed.

    Raises
    ------
    ValueError
        If the program has no agent-level site, a parameter is missing or unknown, or a site is
        called as a coordinate of the game.
    """
    is_a("game", game, MeanFieldGame)
    return typed(game, reward, site_values("parameters", parameters))


def typed(
    game: MeanFieldGame, reward: RewardProgram, values: Mapping[str, Any]
) -> tuple[MeanFieldGame, RewardProgram]:
    """Return the same at values by site that are known."""
    bound = bind(reward, values)
    with double_precision(), torch.no_grad():
        nodes = ran(bound, at_start(game)).nodes
    if nodes is None:
        raise ValueError(
            "the reward program has no agent-level site; declare what each agent has for itself "
            "inside `with x.agents:`."
        )
    return typed_game(game, nodes), typed_program(game, bound)


def typed_game(game: MeanFieldGame, nodes: Nodes) -> MeanFieldGame:
    """Return the game in which the nodes of agents are types, in their shares."""
    check_site_names(game, nodes)
    own = {k: game.space.coordinates[k] for k in game.space.types}
    types: dict[str, Any] = {site.name: range(site.size) for site in nodes.sites} | own
    shares = nodes.log_weights.exp()
    changes: dict[str, Any] = {"types": types, "initial": (shares * game.initial).reshape(-1)}
    if game.meets.network is not None:
        changes["meets"] = game.meets.network  # between the types that it was between
    elif not game.meets.by_mass:
        changes["meets"] = _exposures(game, types, shares * game.initial)
    return game.replace(**changes)


def check_site_names(game: MeanFieldGame, nodes: Nodes) -> None:
    """Raise a `ValueError` if a site is called as a coordinate of the game."""
    for site in nodes.sites:
        if site.name in game.space.coordinates:
            raise ValueError(
                f"the agent-level site {site.name!r} is called as a coordinate of the game; rename "
                "one."
            )


def _exposures(game: MeanFieldGame, types: Mapping[str, Any], start: Tensor) -> pd.DataFrame:
    """Return the exposure matrix by kind and type, of kinds in proportion to their numbers."""
    n_cells = game.n_cells
    mass = start.reshape(len(start), n_cells, -1).sum(-1)
    total = mass.sum(0)
    within = mass / total.masked_fill(total == 0, 1.0)
    weights = torch.from_numpy(game.meets.matrix)[game.meets.row]  # (C, C)
    each = (weights[:, None, :] * within).reshape(n_cells, -1).repeat(len(start), 1)
    labels = list(pd.MultiIndex.from_product(list(map(list, types.values()))))
    texts = [", ".join(map(str, label)) for label in labels]
    return pd.DataFrame(each.numpy(), index=texts, columns=texts)


def typed_program(game: MeanFieldGame, reward: RewardProgram) -> RewardProgram:
    """Return the program of the game with types that runs one of the game without them.

    Its latent sites are those of the other, but for what agents have for themselves.
    """

    def of_types(x: RewardInputs) -> Preferences:
        inner = RewardInputs(game, pooled(game, x.whole_flow))
        run = ran(reward, inner)
        assert isinstance(run.nodes, Nodes)
        each = run.nodes.preferences(run.declared.preferences, len(inner.shape))
        return Preferences(**{name: _by_type(name, each, inner) for name in _declared(each)})

    return of_types


def pooled(game: MeanFieldGame, flow: Tensor) -> Tensor:
    """Return a game's flow of one in which its agents are of several kinds: the sum over kinds."""
    return flow.reshape(len(flow), -1, *game.flow_shape[1:]).sum(1)


def _declared(each: list[Preferences]) -> list[str]:
    return list(dict.fromkeys(["reward", *each[0].parts]))


def _by_type(name: str, each: list[Preferences], inner: RewardInputs) -> Any:
    """Return a part with one axis for kinds and types together."""
    parts = [getattr(own, name) for own in each]
    if all(isinstance(part, (int, float, np.number)) for part in parts):
        return parts[0]
    tables = torch.stack([spread(name, part, inner) for part in parts])
    return tables.reshape(-1, *tables.shape[-3:])
