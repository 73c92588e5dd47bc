"""The panel drawn again: who was observed, when and from where stays, the rest is chance."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import Seed, is_a, seed_of, strict_keywords
from mfgppl._generated_flow import flow_of_policy
from mfgppl._keep import keep
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.equilibrium.response import check_policy
from mfgppl.equilibrium.simulation import draw_category
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel


@strict_keywords
def replay(model: TrajectoryModel, policy: Any, *, random_seed: Seed = None) -> Trajectories:
    """Draw a model's panel again, by a policy along its flow.

    Each trajectory starts where and when it did, and is observed for as long; its actions are
    drawn from the policy, its further states from the game's dynamics along the model's flow (of a
    coupled model, the flow that the policy generates). At the soft policy of the true reward this
    is the law that the causal likelihood assumes.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action, as of `mfgppl.policy` at a point.
    random_seed : int or SeedSequence, optional
        Seed of the draws; by default a fresh one.

    Returns
    -------
    Trajectories
        The panel with other actions and states. Where dynamics differ by time, the state after
        the game's last decision is not drawn.

    Raises
    ------
    ValueError
        If the panel does not keep its trajectories, or the policy does not fit the game.
    """
    is_a("model", model, TrajectoryModel)
    random_seed = seed_of(random_seed)
    game, panel = model.game, with_rows(model.panel, "replay")
    flow = model.mean_field
    if model.coupled and game.crowd_moves_dynamics:  # which answer the crowd that the policy makes
        flow = flow_of_policy(game, check_policy(game, policy)).detach()
    return draw_again(game, panel, policy, flow, random_seed)


def replay_kinds(
    model: TrajectoryModel, core: np.ndarray, *, flow: Tensor, random_seed: int
) -> tuple[Trajectories, np.ndarray]:
    """Draw the panel of a model whose agents' kinds are not seen, at a reward of its law.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    core : ndarray
        The reward.
    flow : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow that moves the dynamics.
    random_seed : int
        Seed of the draws.

    Returns
    -------
    Trajectories
        The panel with other actions and states.
    ndarray, shape (n_agents,)
        The node of each agent, drawn by the weights of the first state in which it was seen.
    """
    law, panel = model.law, with_rows(model.panel, "replay")
    assert isinstance(law, KindsLikelihood)
    log_policies, logs = law.table_arrays(core)
    weights = np.exp(logs[:, panel.state[panel.offsets[:-1]][panel.first_of_owner]]).T
    node = draw_category(np.random.default_rng([random_seed, 1]), weights.cumsum(1))
    chances = np.exp(log_policies).cumsum(-1)
    of_trajectory = node[panel.owner]
    drawn = _drawn(model.game, panel, chances, of_trajectory, flow, random_seed)
    return drawn, node


def draw_again(
    game: MeanFieldGame, panel: Trajectories, policy: Any, flow: Tensor, random_seed: int
) -> Trajectories:
    """Draw the actions and states of a panel again, by a policy along a flow.

    Parameters
    ----------
    game : MeanFieldGame
        Whose dynamics move the states.
    panel : Trajectories
        Who is observed, when, and from which first state.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action.
    flow : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow that moves the dynamics.
    random_seed : int
        Seed of the draws.
    """
    chances = check_policy(game, policy).detach().numpy().cumsum(-1)[None]
    everyone = np.zeros(panel.n_trajectories, dtype=int)
    return _drawn(game, panel, chances, everyone, flow, random_seed)


def _drawn(
    game: MeanFieldGame,
    panel: Trajectories,
    chances: np.ndarray,
    node: np.ndarray,
    flow: Tensor,
    random_seed: int,
) -> Trajectories:
    """Draw a panel by the policies (N, T, S, A), summed up over actions, of trajectories' nodes."""
    if game.tables_by_time:
        panel = _before(panel, game.shape[0])
    with torch.no_grad():
        steps = game.steps_along(flow)
    rng = np.random.default_rng(random_seed)
    state, action = panel.state.copy(), panel.action.copy()
    of_row = node[panel.trajectory]
    for t, turn in enumerate(_turns(panel, from_start=game.stationary)):
        k = 0 if game.stationary else t
        action[turn.rows] = draw_category(rng, chances[of_row[turn.rows], k, state[turn.rows]])
        here = turn.followed
        if len(here):
            uniform = rng.random(len(here))
            state[here + 1] = steps.draw(k, state[here], action[here], uniform)
    return replace(panel, state=state, action=action)


class _Turn(NamedTuple):
    """The rows of a panel in which agents act at one time, and those with a row after them."""

    rows: np.ndarray
    followed: np.ndarray


def _turns(panel: Trajectories, *, from_start: bool) -> list[_Turn]:
    """Return the turns of a panel in order, by time or by the steps since a trajectory began."""

    def found() -> list[_Turn]:
        since = np.arange(len(panel.state)) - panel.offsets[panel.trajectory]
        acts = np.flatnonzero(panel.action >= 0)
        goes_on = np.append(np.diff(panel.trajectory) == 0, False)
        when = (since if from_start else panel.time)[acts]
        rows = acts[np.argsort(when, kind="stable")]
        bounds = np.searchsorted(np.sort(when), np.arange(1, when.max() + 1))
        return [_Turn(part, part[goes_on[part]]) for part in np.split(rows, bounds)]

    return keep(panel, f"turns, from start {from_start}", found)


def _before(panel: Trajectories, horizon: int) -> Trajectories:
    """Return the panel without states seen after the game's last decision."""
    kept = panel.time < horizon
    offsets = np.append(0, kept.cumsum())[panel.offsets]
    rows = {k: getattr(panel, k)[kept] for k in ("time", "state", "action")}
    return replace(panel, offsets=offsets, **rows)
