"""The discriminator of MF-AIRL: a reward and a potential that distinguish choices."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import torch_seed
from mfgppl._quasi_newton import maximise
from mfgppl.baselines.task import Task
from mfgppl.reward.parameters import Program

UNITS = 16  # hidden units of the network of the potential


class Moves(NamedTuple):
    """How often moves occur: `(t, s, a)` with next states, and the last decisions without.

    Attributes
    ----------
    onward : Tensor, shape (T-1, S, A, S)
        Shares of moves by time, state, action and next state.
    last : Tensor, shape (S, A)
        Shares of the last decisions.
    """

    onward: Tensor
    last: Tensor

    @property
    def occupancy(self) -> Tensor:
        """Shares of states and actions by time, (T, S, A)."""
        T = len(self.onward) + 1
        return T * torch.cat([self.onward.sum(-1), self.last[None]])


class Verdict(NamedTuple):
    """How the discriminator stands.

    Attributes
    ----------
    loss : float
        Cross entropy of the two sources, nats: log 4 where it cannot distinguish them.
    accuracy : float
        Share of choices whose source it names, both sources as frequent.
    gradient : float
        Norm of the gradient in the reward's parameters, nats.
    """

    loss: float
    accuracy: float
    gradient: float


def observed_moves(task: Task) -> Moves:
    """Return the panel's moves."""
    T, S, A = task.game.shape
    moves, n = task.panel.transition_counts()
    inside = moves[:, 0] < T - 1
    onward = np.zeros((T - 1, S, A, S))
    np.add.at(onward, tuple(moves[inside].T), n[inside] / task.panel.n_trajectories)
    return Moves(torch.from_numpy(onward) / T, task.occupancy[-1] / T)


def expected_moves(task: Task, occupancy: Tensor) -> Moves:
    """Return the moves of an occupancy (T, S, A) along the dynamics."""
    tables = task.transition.to_dense() if task.transition.is_sparse else task.transition
    T = task.game.shape[0]
    return Moves(occupancy[:-1, ..., None] * tables / T, occupancy[-1] / T)


class Discriminator:
    """`f = r / beta + gamma g(s', t+1) - g(s, t)`, with `g = 0` after the last decision.

    Parameters
    ----------
    task : Task
        The game along the data's flow.
    program : Program
        The reward program over its parameters.
    potential : {"table", "network"}
        What the potential is.
    expected : bool
        Whether the next state's potential is replaced by its mean.
    seed : int
        Seed of the reward's start, a draw from its priors, and of the network's weights.

    Attributes
    ----------
    point : Tensor
        The reward's parameters.
    shaping : list of Tensor
        The potential's.
    """

    def __init__(
        self, task: Task, program: Program, potential: str, *, expected: bool, seed: int
    ) -> None:
        self.task, self.program, self.expected = task, program, expected
        self.data = observed_moves(task)
        T, S, _ = task.game.shape
        self.point = torch.tensor(program.draw(seed), requires_grad=True)
        self.network = potential == "network"
        shapes = [(S, UNITS), (S, UNITS), (UNITS,), (UNITS,)] if self.network else [(T, S)]
        draws = torch.Generator().manual_seed(torch_seed(seed))
        self.shaping = [
            (0.3 * torch.randn(shape, generator=draws, dtype=torch.float64) * self.network)
            .clone()
            .requires_grad_(True)
            for shape in shapes
        ]

    def potentials(self) -> Tensor:
        """Return the potential along the flow, (T, S)."""
        if not self.network:
            return self.shaping[0]
        states, crowd, bias, last = self.shaping
        flow = self.task.mean_field
        shares = flow.sum(-1) if self.task.game.joint else flow
        return torch.tanh(states[None] + (shares @ crowd)[:, None, :] + bias) @ last

    def scores(self) -> tuple[Tensor, Tensor]:
        """Return f of moves onward, (T-1, S, A, S) or (T-1, S, A, 1), and of the last, (S, A)."""
        game, g = self.task.game, self.potentials()
        reward = self.program.table(self.point) / game.temperature
        here = reward - g[:, :, None]
        if self.expected:
            pairs = range(game.shape[0] - 1)
            ahead = [self.task.steps.expected(t, g[t + 1])[..., None] for t in pairs]
            after = torch.stack(ahead) if ahead else here[:0, ..., None]
        else:
            after = g[1:, None, None, :]
        return here[:-1, ..., None] + game.discount * after, here[-1]

    def judge(self, sampled: Moves, log_policy: Tensor) -> tuple[Tensor, float]:
        """Return the loss against a sampler's moves, and the accuracy.

        Parameters
        ----------
        sampled : Moves
            What the sampler did.
        log_policy : Tensor, shape (T, S, A)
            Its policy.
        """
        log_policy = log_policy.masked_fill(~self.task.game.available, 0.0)
        onward, last = self.scores()
        loss, right = torch.zeros(()), 0.0
        for f, log_pi, ours, theirs in (
            (onward, log_policy[:-1, ..., None], self.data.onward, sampled.onward),
            (last, log_policy[-1], self.data.last, sampled.last),
        ):
            if f.shape != ours.shape and f.shape[-1] == 1:
                ours, theirs = ours.sum(-1, keepdim=True), theirs.sum(-1, keepdim=True)
            total = torch.logaddexp(f, log_pi)
            loss = loss - (ours * (f - total)).sum() - (theirs * (log_pi - total)).sum()
            named = (f > log_pi).to(f.dtype) + 0.5 * (f == log_pi)
            right += float((ours * named + theirs * (1.0 - named)).sum().detach()) / 2
        return loss, right

    def put_reward(self, point: np.ndarray) -> None:
        """Set the reward's parameters."""
        with torch.no_grad():
            self.point.copy_(torch.from_numpy(point))

    def slope(self) -> float:
        """Return the norm of the last gradient in the reward's parameters."""
        return 0.0 if self.point.grad is None else float(self.point.grad.norm())

    def settle(self, sampled: Moves, log_policy: Tensor, steps: int) -> Verdict:
        """Move by quasi-Newton steps towards the best answer to a sampler."""
        owned = [self.point, *self.shaping]
        sizes = [tensor.numel() for tensor in owned]

        def put(flat: np.ndarray) -> None:
            with torch.no_grad():
                for tensor, part in zip(owned, torch.from_numpy(flat).split(sizes), strict=True):
                    tensor.copy_(part.reshape(tensor.shape))

        def height(flat: np.ndarray) -> tuple[float, np.ndarray]:
            put(flat)
            for tensor in owned:
                tensor.grad = None
            loss, _ = self.judge(sampled, log_policy)
            loss.backward()
            slopes = [torch.zeros_like(v) if v.grad is None else v.grad for v in owned]
            return -float(loss.detach()), -torch.cat([v.reshape(-1) for v in slopes]).numpy()

        start = torch.cat([tensor.detach().reshape(-1) for tensor in owned]).numpy()
        end = maximise(
            height, start, tolerance=1e-9, gain=1e-14, max_steps=steps, max_evaluations=2 * steps
        )
        height(end.point)
        loss, accuracy = self.judge(sampled, log_policy)
        return Verdict(float(loss.detach()), accuracy, self.slope())
