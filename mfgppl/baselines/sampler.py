"""A sampler that knows the dynamics by what agents drawn from them do: model-free."""

import numpy as np
import torch
from torch import Tensor

from mfgppl._generated_flow import uniform_policy
from mfgppl.baselines.adversary import Moves
from mfgppl.baselines.task import Task
from mfgppl.equilibrium.simulation import draw_category

RARE = 1e-6  # probability below which a policy does not let an action fall


class Sampler:
    """A policy that is improved along the returns of the agents that it draws.

    Parameters
    ----------
    task : Task
        The game along the data's flow, as an environment to draw from.
    seed : int
        Seed of the draws.
    n_agents : int
        Agents drawn a round.
    rate : float in (0, 1]
        Share of the way to the greedy improvement.

    Attributes
    ----------
    log_policy : Tensor, shape (T, S, A)
        The policy.
    n_interactions : int
        Steps drawn so far.
    """

    def __init__(self, task: Task, seed: int, n_agents: int, rate: float) -> None:
        self.task, self.n_agents, self.rate = task, n_agents, rate
        self.rng = np.random.default_rng(seed)
        self.log_policy = uniform_policy(task.game).log()
        self.n_interactions = 0
        self.states = np.empty((0, 0), dtype=np.int64)
        self.actions = self.states

    def draw(self) -> Moves:
        """Draw agents who follow the policy and return their moves."""
        T, S, A = self.task.game.shape
        n, steps = self.n_agents, self.task.steps
        policy = self.log_policy.exp().numpy().cumsum(-1)
        state, action = np.empty((T, n), dtype=np.int64), np.empty((T, n), dtype=np.int64)
        start = self.task.start.numpy().cumsum()
        state[0] = draw_category(self.rng, np.tile(start, (n, 1)))
        onward, last = np.zeros((T - 1, S, A, S)), np.zeros((S, A))
        for t in range(T):
            action[t] = draw_category(self.rng, policy[t][state[t]])
            if t < T - 1:
                state[t + 1] = steps.draw(t, state[t], action[t], self.rng.random(n))
                np.add.at(onward[t], (state[t], action[t], state[t + 1]), 1.0 / (n * T))
        np.add.at(last, (state[-1], action[-1]), 1.0 / (n * T))
        self.states, self.actions = state, action
        self.n_interactions += n * T
        return Moves(torch.from_numpy(onward), torch.from_numpy(last))

    def improve(self, onward: Tensor, last: Tensor) -> tuple[float, float]:
        """Improve the policy along the score f of the moves drawn last.

        Each pair of state and action is moved along the mean, over the agents who met it, of the
        soft return to go `f_t + sum_{k>t} gamma^{k-t} (f_k - log pi_k)` less the state's own mean.

        Returns
        -------
        tuple of float
            The log partition function of `exp sum f` by importance sampling from the policy,
            nats, and the effective share of samples.
        """
        T, S, A = self.task.game.shape
        log_pi = self.log_policy.numpy()
        total, weight = np.zeros(self.n_agents), np.zeros(self.n_agents)
        step = np.zeros((T, S, A))
        wide = onward.shape[-1] > 1
        for t in range(T - 1, -1, -1):
            s, a = self.states[t], self.actions[t]
            if t == T - 1:
                score = last.numpy()[s, a]
            else:
                score = onward.numpy()[t][s, a, self.states[t + 1] if wide else 0]
            gain = score - log_pi[t, s, a] + self.task.game.discount * total
            step[t] = self._advantage(s, a, gain)
            total, weight = gain, weight + score - log_pi[t, s, a]
        self._move(torch.from_numpy(step))
        shares = np.exp(weight - weight.max())
        log_partition = np.log(shares.mean()) + weight.max()
        return float(log_partition), float(shares.sum() ** 2 / (shares**2).sum() / self.n_agents)

    def _advantage(self, s: np.ndarray, a: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """Return the mean gain of each pair that was met, less its state's; zero elsewhere."""
        _, S, A = self.task.game.shape
        pairs, sums = np.zeros((S, A)), np.zeros((S, A))
        np.add.at(pairs, (s, a), 1.0)
        np.add.at(sums, (s, a), gain)
        mean = sums / np.maximum(pairs, 1.0)
        state = sums.sum(-1) / np.maximum(pairs.sum(-1), 1.0)
        return np.where(pairs > 0, mean - state[:, None], 0.0)

    def _move(self, step: Tensor) -> None:
        game = self.task.game
        logits = self.log_policy + self.rate * step.clamp(-5.0, 5.0)
        moved = torch.log_softmax(logits.masked_fill(~game.available, -torch.inf), -1)
        moved = moved.clamp_min(np.log(RARE)).masked_fill(~game.available, -torch.inf)
        self.log_policy = torch.log_softmax(moved, -1)
