"""MF-AIRL: adversarial inverse reinforcement learning along the data's flow.

A discriminator `D = exp f / (exp f + pi)` distinguishes the data's choices from a sampler's, with
`f = r / beta + gamma g(s', t+1) - g(s, t)`; the sampler `pi` is trained on
`log D - log(1 - D) = f - log pi`. At the optimum `f = log pi^E`.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import Seed, one_of, positive_int, real_between, seed_of, strict_keywords
from mfgppl.baselines.adversary import Discriminator, Verdict, expected_moves
from mfgppl.baselines.estimate import (
    Ending,
    Estimate,
    estimate_at,
    mismatch_message,
    total_variation,
    unrest_message,
)
from mfgppl.baselines.sampler import Sampler
from mfgppl.baselines.task import Task, program_of, task_of
from mfgppl.control.fixed_flow import advantages, occupancy_of, spread_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram, double_precision

SAMPLERS = ["exact", "sampled"]
NEXT_STATES = ["observed", "expected"]
POTENTIALS = ["table", "network"]
USUAL = {"exact": (60, 50), "sampled": (600, 2)}  # rounds, discriminator steps a round
STILL = 1e-3  # change of advantages over a round that counts as none, temperatures
NEARER, RETREAT, SLOWEST = 0.9, 0.7, 0.02  # when, and by how much, the reward goes more slowly
DRIFT = 0.01  # the same over the last quarter of the rounds of a sampled fit
FAR_FROM_A_LAW = 2.0  # nats of a log partition function
SATURATED = 0.95  # accuracy from which the discriminator has won
LAST = 0.25  # share of the rounds over which a sampled fit is averaged


@strict_keywords
def mfairl(
    trajectories: Any,
    game: MeanFieldGame,
    *,
    reward: RewardProgram,
    random_seed: Seed = 0,
    sampler: str = "exact",
    next_state: str = "observed",
    potential: str = "table",
    n_rounds: int | None = None,
    discriminator_steps: int | None = None,
    learning_rate: float = 0.1,
    n_agents: int = 100,
    policy_rate: float = 0.2,
) -> Estimate:
    """Recover a reward by distinguishing the agents' choices from those of a sampler that learns.

    Parameters
    ----------
    trajectories : Trajectories or CountedPanel
        The panel, of whole trajectories.
    game : MeanFieldGame
        The game, with a horizon.
    reward : callable
        A reward program; its priors play no part.
    random_seed : int or SeedSequence
        Seed of the start, a draw from the priors, and of what the sampler draws.
    sampler : {"exact", "sampled"}
        "exact" solves the sampler's entropy-regularised problem by backward induction, weighs all
        its moves by their probability and lets the discriminator answer by quasi-Newton steps.
        "sampled" knows the dynamics by what agents drawn from them do, improves the policy by
        natural policy gradient steps and the discriminator by Adam's: model-free.
    next_state : {"observed", "expected"}
        As printed, `f` holds the potential of the state that was reached. At the optimum `f` is a
        function of state and action alone, which it can be only where dynamics are deterministic
        or potentials constant. "expected" takes the mean over next states, which needs the
        dynamics and removes that bias.
    potential : {"table", "network"}
        The shaping `g`: a number for each time and state, the richest there is, or a network of
        state and mean field, as printed, which knows the time through the flow alone.
    n_rounds : int, optional
        Rounds of discriminator and sampler at most; by default 60 by "exact", which ends where the
        reward is still, and 600 by "sampled".
    discriminator_steps : int, optional
        Steps of the discriminator a round; by default 50 by "exact" and 2 by "sampled".
    learning_rate : float
        Of Adam, by "sampled"; falls to a tenth.
    n_agents : int
        Agents drawn a round, by "sampled".
    policy_rate : float in (0, 1]
        Share of the way to the greedy improvement that the sampler takes a round, by "sampled".

    Returns
    -------
    Estimate
        `history` holds the discriminator's loss (log 4 where it is at a loss), its accuracy, the
        gap of occupancies, and by "sampled" the partition function estimated by importance
        sampling, `log_partition` (nats, 0 at the optimum), with its effective share of samples.

    Raises
    ------
    ValueError
        If the game has types.

    Warns
    -----
    ConvergenceWarning
        If a failure is detected: a saturated discriminator, a vanished gradient, a constant
        reward, or a reward that still moves.

    References
    ----------
    .. [1] Chen, Zhang, Liu and Witbrock (2023), *Adversarial inverse reinforcement learning for
       mean field games*, AAMAS, arXiv:2104.14654.
    .. [2] Fu, Luo and Levine (2018), *Learning robust rewards with adversarial inverse
       reinforcement learning*, ICLR.
    """
    began = time.perf_counter()
    task = task_of(trajectories, game, reward)
    if task.game.space.types:
        raise ValueError(
            "mfairl has no form for a game with types, whose moves between types it would judge; "
            "fit each type's own panel, as of panel.split, or use mfirl."
        )
    seed = seed_of(random_seed)
    program = program_of(reward, task.inputs)
    one_of("sampler", sampler, SAMPLERS)
    one_of("next_state", next_state, NEXT_STATES)
    one_of("potential", potential, POTENTIALS)
    usual = USUAL[sampler]
    n_rounds = positive_int("n_rounds", usual[0] if n_rounds is None else n_rounds)
    steps = usual[1] if discriminator_steps is None else discriminator_steps
    steps = positive_int("discriminator_steps", steps)
    rate = real_between("learning_rate", learning_rate, above=0.0)
    n_agents = positive_int("n_agents", n_agents)
    policy_rate = real_between("policy_rate", policy_rate, above=0.0, upto=1.0)
    judge = Discriminator(task, program, potential, expected=next_state == "expected", seed=seed)
    drawn = Sampler(task, seed, n_agents, policy_rate) if sampler == "sampled" else None
    with double_precision():
        if drawn is None:
            duel = _exact_duel(task, judge, n_rounds, steps)
        else:
            duel = _sampled_duel(task, judge, drawn, n_rounds, steps, rate)
    still = duel.moved <= (STILL if drawn is None else DRIFT)
    lost = () if drawn is None else mismatch_message(task, duel.verdict.gradient, duel.reached)
    ending = Ending(
        duel.history,
        still,
        f"advantages moved by {duel.moved:.1e} temperatures at the end of {len(duel.history)} "
        f"rounds; discriminator right in {duel.verdict.accuracy:.0%}",
        (
            *_saturation_message(duel.verdict),
            *_partition_message(duel.history),
            *lost,
            *unrest_message(still),
        ),
        0 if drawn is None else drawn.n_interactions,
        len(duel.history),
        time.perf_counter() - began,
    )
    return estimate_at(
        f"MF-AIRL, {sampler}, {next_state} next state", task, program, duel.point, ending,
        policy=duel.policy,
    )  # fmt: skip


class Duel(NamedTuple):
    """Where discriminator and sampler ended.

    Attributes
    ----------
    point : ndarray
        The reward's parameters.
    policy : Tensor, shape (T, S, A), or None
        The sampler's; None where it is the soft best response.
    verdict : Verdict
        The discriminator's last.
    reached : Tensor, shape (T, S, A)
        The sampler's occupancy.
    moved : float
        Root mean square change of the reward's advantages over the last round, or over the last
        quarter of a sampled fit's rounds, temperatures.
    history : list of dict
        One row per round.
    """

    point: np.ndarray
    policy: Tensor | None
    verdict: Verdict
    reached: Tensor
    moved: float
    history: list[dict[str, float]]


def _exact_duel(task: Task, judge: Discriminator, n_rounds: int, steps: int) -> Duel:
    """Let an exact sampler and a discriminator at rest answer each other.

    The score that distinguishes them holds the ratio of their shares of states, so that the answer
    to a sampler that goes too rarely somewhere sends it there too often: the reward goes a part
    of the way, and a smaller one where that does not bring it nearer.
    """
    history: list[dict[str, float]] = []
    moved, rate = np.inf, 0.5
    before = judge.point.detach().numpy().copy()
    for _ in range(n_rounds):
        with torch.no_grad():
            reward = judge.program.table(judge.point)
        log_policy = task.response(reward)[1]
        occupancy = occupancy_of(log_policy.exp(), task.steps, task.start)
        verdict = judge.settle(expected_moves(task, occupancy), log_policy, steps)
        after = judge.point.detach().numpy().copy()
        last, moved = moved, _advantage_change(task, judge.program, before, after)
        if moved > NEARER * last:
            rate = max(RETREAT * rate, SLOWEST)
        before = before + rate * (after - before)
        judge.put_reward(before)
        gap = total_variation(task.occupancy, occupancy)
        history.append({**verdict._asdict(), "gap": gap, "moved": moved})
        if moved <= STILL:
            break
    return Duel(before, None, verdict, occupancy, moved, history)


def _sampled_duel(
    task: Task, judge: Discriminator, drawn: Sampler, n_rounds: int, steps: int, rate: float
) -> Duel:
    """Let discriminator and sampler take turns on what the sampler draws."""
    adam = torch.optim.Adam([judge.point, *judge.shaping], lr=rate, betas=(0.5, 0.99))
    history: list[dict[str, float]] = []
    points = []
    for k in range(n_rounds):
        adam.param_groups[0]["lr"] = rate * 0.1 ** (k / n_rounds)
        moves, log_policy = drawn.draw(), drawn.log_policy
        for _ in range(steps):
            adam.zero_grad()
            loss, accuracy = judge.judge(moves, log_policy)
            loss.backward()
            adam.step()
        verdict = Verdict(float(loss.detach()), accuracy, judge.slope())
        gap = total_variation(task.occupancy, moves.occupancy)
        with torch.no_grad():
            log_partition, share = drawn.improve(*judge.scores())
        row = {**verdict._asdict(), "gap": gap}
        history.append(row | {"log_partition": log_partition, "effective_share": share})
        points.append(judge.point.detach().numpy().copy())
    n_last = max(int(LAST * n_rounds), 1)
    halves = points[-n_last:][: max(n_last // 2, 1)], points[-max(n_last // 2, 1) :]
    moved = _advantage_change(task, judge.program, *(np.mean(half, axis=0) for half in halves))
    point = np.mean(points[-n_last:], axis=0)
    return Duel(point, drawn.log_policy.exp(), verdict, moves.occupancy, moved, history)


def _advantage_change(task: Task, program: Program, before: np.ndarray, after: np.ndarray) -> float:
    """Return how far the advantages moved between two points, temperatures."""
    game = task.game
    with torch.no_grad():
        tables = [program.table(torch.as_tensor(p)) for p in (before, after)]
        change = advantages(
            tables[1] - tables[0], task.steps, game.available, discount=game.discount
        )
    return float(spread_of(change, task.occupancy.sum(-1), game.available)) / game.temperature


def _saturation_message(verdict: Verdict) -> tuple[str, ...]:
    """Return a message where the discriminator has won, so that the sampler learns nothing."""
    if verdict.accuracy < SATURATED:
        return ()
    return (
        f"the discriminator has saturated: it names the source of {verdict.accuracy:.0%} of the "
        "choices; lower `learning_rate` or give fewer `discriminator_steps`",
    )


def _partition_message(history: list[dict[str, float]]) -> tuple[str, ...]:
    """Return a message where the score is far from being the log of a law of choices."""
    if "log_partition" not in history[-1]:
        return ()
    last = history[-max(int(LAST * len(history)), 1) :]
    log_partition = float(np.median([row["log_partition"] for row in last]))
    if abs(log_partition) < FAR_FROM_A_LAW:
        return ()
    return (
        f"the log partition function is {log_partition:.1f} nats, 0 where the score is the log of "
        "a law of choices: the sampler has not caught up, or `next_state='observed'` cannot be "
        "right under random dynamics",
    )
