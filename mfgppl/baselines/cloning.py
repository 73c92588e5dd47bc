"""Behaviour cloning: the panel's own frequencies, without a reward."""

import time
from typing import Any

import pandas as pd
import torch

from mfgppl._arguments import Seed, is_a, not_negative, seed_of, strict_keywords
from mfgppl.baselines.estimate import Estimate
from mfgppl.baselines.task import task_of
from mfgppl.game import MeanFieldGame


@strict_keywords
def behaviour_cloning(
    trajectories: Any,
    game: MeanFieldGame,
    *,
    reward: Any = None,
    random_seed: Seed = 0,
    prior_count: float = 1.0,
    by_time: bool = True,
) -> Estimate:
    """Return the frequencies of actions by time and state.

    Parameters
    ----------
    trajectories : Trajectories or CountedPanel
        The panel, of whole trajectories.
    game : MeanFieldGame
        The game, with a horizon.
    reward : callable, optional
        Plays no part.
    random_seed : int or SeedSequence
        Plays no part.
    prior_count : float, not negative
        Pseudo-count added to each available action. At zero a state that nobody visits takes all
        actions alike, and an action that nobody takes has probability zero.
    by_time : bool
        Whether choices may depend on the time, or are pooled.

    Returns
    -------
    Estimate
        With a policy and no reward: it cannot be solved in another world.
    """
    began = time.perf_counter()
    task = task_of(trajectories, game, reward)
    seed_of(random_seed)
    is_a("by_time", by_time, bool)
    prior_count = not_negative("prior_count", prior_count)
    counts = torch.as_tensor(task.panel.counts.actions).clone()
    if not by_time:
        counts = counts.sum(0, keepdim=True).expand(game.shape)
    counts = (counts + prior_count) * game.available
    unseen = counts.sum(-1, keepdim=True) == 0
    counts = torch.where(unseen, game.available.to(counts.dtype), counts)
    policy = counts / counts.sum(-1, keepdim=True)
    return Estimate(
        "behaviour cloning", game, None, None, None, None, policy, pd.DataFrame(), True,
        f"frequencies of {task.panel.n_decisions} decisions", (), 0, 0,
        time.perf_counter() - began,
    )  # fmt: skip
