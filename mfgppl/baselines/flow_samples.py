"""PLIRL's partition function by importance sampling over flows."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import torch_seed
from mfgppl._generated_flow import flow_of_policy
from mfgppl.baselines.estimate import Ending
from mfgppl.baselines.planner import entropy_of, occupancy_along
from mfgppl.baselines.task import Task
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program

WIDTH = 2.0  # standard deviation of logits under the reference law
NARROWEST = 0.05  # standard deviation of a proposal
FOLLOW = 0.3  # share of the way that the proposal goes a round
LEAST_SHARE = 0.1  # of samples that the adaptation rests on
FEW = 5.0  # effective flows below which an estimate rests on almost nothing
LAST = 0.25  # share of the rounds over which parameters are averaged


class Flows(NamedTuple):
    """Flows that drawn policies make.

    Attributes
    ----------
    logits, policy, occupancy : Tensor, shape (K, T, S, A)
        The draws, their policies and occupancies.
    mean_field : Tensor, shape (K, *flow)
        Their flows.
    entropy : Tensor, shape (K,)
        Discounted entropy of each policy, nats an agent.
    """

    logits: Tensor
    policy: Tensor
    occupancy: Tensor
    mean_field: Tensor
    entropy: Tensor


def drawn_flows(
    task: Task, mean: Tensor, deviation: Tensor, n: int, draws: torch.Generator
) -> Flows:
    """Draw policies with normal logits, and roll out the population under each."""
    noise = torch.randn((n, *mean.shape), generator=draws, dtype=torch.float64)
    logits = mean + deviation * noise
    policy = torch.softmax(logits.masked_fill(~task.game.available, -torch.inf), -1)
    flows = torch.stack([flow_of_policy(task.game, p) for p in policy])
    pairs = list(zip(policy, flows, strict=True))
    occupancy = torch.stack([occupancy_along(task.game, p, f) for p, f in pairs])
    entropy = torch.stack([entropy_of(task, p, f) for p, f in pairs])
    return Flows(logits, policy, occupancy, flows, entropy)


def log_weights(
    flows: Flows, returns: Tensor, mean: Tensor, deviation: Tensor, *, beta: float, population: int
) -> Tensor:
    """Return the log importance weights (K,) of flows for the maximum-entropy law.

    Its density over logits is `exp(N (J / beta + entropy))` times the reference law, N(0, 2^2).
    """
    dims = (1, 2, 3)
    reference = (-0.5 * (flows.logits / WIDTH) ** 2).sum(dims) - mean.numel() * np.log(WIDTH)
    proposal = (-0.5 * ((flows.logits - mean) / deviation) ** 2).sum(dims) - deviation.log().sum()
    return population * (returns / beta + flows.entropy) + reference - proposal


def returns_of(task: Task, program: Program, point: Tensor, flows: Flows) -> Tensor:
    """Return the average return (K,) of each flow, differentiable in the parameters."""
    earned = [
        (task.discounts * occupancy * program.table(point, RewardInputs(task.game, flow))).sum()
        for occupancy, flow in zip(flows.occupancy, flows.mean_field, strict=True)
    ]
    return torch.stack(earned)


def sampled_fit(
    task: Task,
    program: Program,
    *,
    seed: int,
    n_rounds: int,
    n_flows: int,
    population: int,
    rate: float,
    began: float,
) -> tuple[np.ndarray, Tensor, Ending]:
    """Climb the likelihood of the data's flow with sampled partition functions.

    Returns
    -------
    tuple
        The parameters, the policy at the proposal's mean, and how it ended.
    """
    beta, draws = task.game.temperature, torch.Generator().manual_seed(torch_seed(seed))
    mean = torch.zeros(task.game.shape, dtype=torch.float64)
    deviation = torch.full_like(mean, WIDTH)
    point = torch.tensor(program.draw(seed), requires_grad=True)
    adam = torch.optim.Adam([point], lr=rate, betas=(0.5, 0.999))
    history: list[dict[str, Any]] = []
    points = []
    for k in range(n_rounds):
        flows = drawn_flows(task, mean, deviation, n_flows, draws)
        adam.param_groups[0]["lr"] = rate * 0.1 ** (k / n_rounds)
        adam.zero_grad()
        returns = returns_of(task, program, point, flows)
        log_shares = log_weights(
            flows, returns.detach(), mean, deviation, beta=beta, population=population
        )
        shares = torch.softmax(log_shares, 0)
        ours = (task.discounts * task.occupancy * program.table(point)).sum()
        gain = (ours - (shares * returns).sum()) / beta
        (-gain).backward()
        adam.step()
        log_partition = float(torch.logsumexp(log_shares, 0)) - np.log(n_flows)
        history.append(
            {
                "objective": float(ours.detach()) / beta - log_partition / population,
                "gradient": float(point.grad.norm()) if point.grad is not None else 0.0,
                "log_partition": log_partition,
                "effective_flows": float(1.0 / (shares**2).sum()),
            }
        )
        points.append(point.detach().numpy().copy())
        mean, deviation = _next_proposal(flows.logits, log_shares, mean, deviation)
    ending = _ending(task, points, history, n_rounds * n_flows, began)
    policy = torch.softmax(mean.masked_fill(~task.game.available, -torch.inf), -1)
    return np.mean(points[-_n_last(n_rounds) :], axis=0), policy, ending


def _next_proposal(
    logits: Tensor, log_weight: Tensor, mean: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the proposal moved towards the weights, flattened until enough draws count."""
    power, least = 1.0, LEAST_SHARE * len(logits)
    shares = torch.softmax(log_weight, 0)
    while 1.0 / float((shares**2).sum()) < least and power > 1e-6:
        power /= 1.5
        shares = torch.softmax(power * log_weight, 0)
    weight = shares[:, None, None, None]
    centre = (weight * logits).sum(0)
    spread = (weight * (logits - centre) ** 2).sum(0).sqrt()
    mean = (1 - FOLLOW) * mean + FOLLOW * centre
    deviation = ((1 - FOLLOW) * deviation + FOLLOW * spread).clamp_min(NARROWEST)
    return mean, deviation


def _n_last(n_rounds: int) -> int:
    return max(int(LAST * n_rounds), 1)


def _ending(
    task: Task, points: list[np.ndarray], history: list[dict[str, Any]], n_flows: int, began: float
) -> Ending:
    last = points[-_n_last(len(points)) :]
    drift = float(np.abs(last[-1] - last[0]).max() / max(np.abs(last[-1]).max(), 1.0))
    effective = float(np.median([row["effective_flows"] for row in history[-len(last) :]]))
    messages: tuple[str, ...] = ()
    if effective < FEW:
        messages = (
            f"the importance weights have collapsed: {effective:.1f} effective flows a round; the "
            "partition function is not known. Use partition='exact'",
        )
    return Ending(
        history,
        drift < 0.05 and not messages,
        f"parameters drifted by {drift:.2f} over the last quarter of {len(points)} rounds; "
        f"{effective:.1f} effective flows",
        messages,
        n_flows * task.game.shape[0],
        len(points),
        time.perf_counter() - began,
    )
