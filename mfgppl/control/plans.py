"""What agents do along a flow, whatever they are: laws of behaviour, shocks, lapses, short plans.

`Q0_t = r_t + discount P_t V_{t+1}`, `V_t = M(Q0_t)`, and the policy is the soft maximum of
`Q_t = Q0_t + shock_t`, of which a share is lapses. States are stacked, cells leading.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mfgppl.control.stationary_control import policy_iteration
from mfgppl.control.steps import Steps

LAWS = ("entropy", "mistakes", "boltzmann")


class Agent(NamedTuple):
    """What an agent is, in tables along a flow.

    Attributes
    ----------
    reward : Tensor, shape (T, S, A)
        Reward of each decision, reward units.
    ending : Tensor, shape (S, A), or None
        Expected worth after the last decision, before it is discounted.
    shock : Tensor, shape (T, S, A), or None
        What is seen when acting and was not foreseen, reward units.
    discount, temperature : Tensor, shape () or (S, 1)
        Weight of the next period; of the noise, in reward units.
    lapse : Tensor, shape (T, S, 1), or None
        Share of decisions taken at random.
    """

    reward: Tensor
    ending: Tensor | None
    shock: Tensor | None
    discount: Tensor
    temperature: Tensor
    lapse: Tensor | None

    @property
    def reward_and_end(self) -> Tensor:
        """The reward of decisions (T, S, A), the discounted ending in the last."""
        if self.ending is None:
            return self.reward
        return with_last(self.reward, self.discount * self.ending)

    def since(self, t: int) -> "Agent":
        """Return the agent from a time on."""
        shock, lapse = (None if part is None else part[t:] for part in (self.shock, self.lapse))
        return self._replace(reward=self.reward[t:], shock=shock, lapse=lapse)


def with_last(reward: Tensor, more: Tensor) -> Tensor:
    """Return a reward (T, S, A) with more (S, A) at the last decision."""
    return torch.cat([reward[:-1], (reward[-1] + more)[None]])


class Plan(NamedTuple):
    """What an agent does, and what it expects.

    Attributes
    ----------
    values : Tensor, shape (T, S)
        Values of the states, reward units, by the law's own measure.
    log_policy : Tensor, shape (T, S, A)
        Log probability of each action, lapses among them; zero where it is not available.
    """

    values: Tensor
    log_policy: Tensor


def plan(
    agent: Agent,
    steps: Steps,
    available: Tensor,
    *,
    law: str = "entropy",
    lookahead: int | None,
    first: int = 0,
) -> Plan:
    """Return what an agent does along a flow.

    Parameters
    ----------
    agent : Agent
        What it is.
    steps : Steps
        Dynamics along the flow.
    available : Tensor of bool, shape (T, S, A)
        Which actions there are.
    law : {"entropy", "mistakes", "boltzmann"}
        How the value of a state follows from those of its actions.
    lookahead : int, optional
        Decisions that a plan looks at, with nothing after them but the end; by default all.
    first : int
        Which step of the dynamics follows the agent's first decision.
    """
    T = len(agent.reward)
    whole, worth = lookahead is None or lookahead >= T, VALUES[law]
    values = [torch.zeros_like(agent.reward[0, :, 0])] * T  # of plans without a decision
    q_values = list(agent.reward)
    for _ in range(1 if whole else lookahead or 1):
        before, values = values, list(values)
        for t in range(T - 1, -1, -1):
            q_values[t] = _q(agent, steps, t, values if whole else before, first)
            values[t] = worth(q_values[t], available[t], agent.temperature)
    return Plan(torch.stack(values), chosen(agent, torch.stack(q_values), available))


def plan_for_ever(agent: Agent, steps: Steps, available: Tensor, *, lookahead: int | None) -> Plan:
    """Return what an agent of the entropy law does who goes on for ever, with T = 1.

    Parameters
    ----------
    agent : Agent
        What it is, with numbers for its discount and temperature.
    steps : Steps
        Dynamics along the flow.
    available : Tensor of bool, shape (1, S, A)
        Which actions there are.
    lookahead : int, optional
        Decisions that a plan looks at; by default all.
    """
    if lookahead is None:
        masked = _masked(agent.reward, available, -torch.inf)
        solution = policy_iteration(
            masked, steps, discount=agent.discount, temperature=agent.temperature
        )
        return Plan(solution.soft_values, chosen(agent, solution.q_values, available))
    q_values = agent.reward[0]
    values = _enjoyed(q_values, available[0], agent.temperature)
    for _ in range(lookahead - 1):
        q_values = agent.reward[0] + agent.discount * steps.expected(0, values)
        values = _enjoyed(q_values, available[0], agent.temperature)
    return Plan(values[None], chosen(agent, q_values[None], available))


def chosen(agent: Agent, q_values: Tensor, available: Tensor) -> Tensor:
    """Return the log probability of each action (T, S, A), zero where it is not available.

    Parameters
    ----------
    agent : Agent
        With its shock, temperature and lapses.
    q_values : Tensor, shape (T, S, A)
        As foreseen, reward units.
    available : Tensor of bool, shape (T, S, A)
        Which actions there are.
    """
    scores = q_values if agent.shock is None else q_values + agent.shock
    # what adds the same to all actions then leaves no rounding behind, nor a slope
    scores = scores - scores.gather(-1, available.to(torch.int8).argmax(-1, keepdim=True))
    scaled = _masked(scores / agent.temperature, available, -torch.inf)
    log_policy = _logs_of_shares(scaled)
    if agent.lapse is not None:
        at_random = (agent.lapse / available.sum(-1, keepdim=True)).log()
        meant = _masked(torch.log1p(-agent.lapse) + log_policy, available, 0.0)
        higher = torch.maximum(meant, at_random)
        log_policy = higher + ((meant - higher).exp() + (at_random - higher).exp()).log()
    return _masked(log_policy, available, 0.0)


def _q(agent: Agent, steps: Steps, t: int, following: list[Tensor], first: int) -> Tensor:
    """Return Q (S, A) as foreseen at a time, by the values of each time (S,)."""
    last = t == len(agent.reward) - 1
    ahead = agent.ending if last else steps.expected(first + t, following[t + 1])
    return agent.reward[t] if ahead is None else agent.reward[t] + agent.discount * ahead


def _enjoyed(q: Tensor, available: Tensor, temperature: Tensor) -> Tensor:
    """Return the values (S,) of agents to whom noise is taste: the log of the sum."""
    scaled = _masked(q / temperature, available, -torch.inf)
    return (temperature * torch.logsumexp(scaled, -1, keepdim=True))[:, 0]


def _suffered(q: Tensor, available: Tensor, temperature: Tensor) -> Tensor:
    """Return the values (S,) of agents who know that they err and do not enjoy it: the mean."""
    scaled = _masked(q / temperature, available, -torch.inf)
    return (_logs_of_shares(scaled).exp() * _masked(q, available, 0.0)).sum(-1)


def _unforeseen(q: Tensor, available: Tensor, temperature: Tensor) -> Tensor:
    """Return the values (S,) of agents who expect to be perfect later: the highest."""
    return _masked(q, available, -torch.inf).amax(-1)


def _logs_of_shares(scores: Tensor) -> Tensor:
    """Return what `torch.log_softmax` does, which asks several threads even for small tables."""
    return scores - torch.logsumexp(scores, -1, keepdim=True)


def _masked(values: Tensor, available: Tensor, other: float) -> Tensor:
    return values.masked_fill(~available, other)


VALUES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "entropy": _enjoyed,
    "mistakes": _suffered,
    "boltzmann": _unforeseen,
}
