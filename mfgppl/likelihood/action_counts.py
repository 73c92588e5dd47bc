"""The action counts of a panel as a distribution of Pyro's."""

import dataclasses
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from mfgppl._kernels import bridge
from mfgppl._modes import own_modes
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.energy import EnergyLikelihood
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.stationary_games import StationaryLikelihood

FixedFlow = CausalLikelihood | EnergyLikelihood | StationaryLikelihood | KindsLikelihood


class ActionCounts(TorchDistribution):
    """The law of a panel's action counts given the states visited.

    Parameters
    ----------
    law : CausalLikelihood, EnergyLikelihood or StationaryLikelihood
        The law of trajectories.
    reward : Tensor, shape (T, S, A)
        Reward units; -inf where an action is not available.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = dist.constraints.independent(dist.constraints.nonnegative_integer, 3)

    def __init__(self, law: FixedFlow, reward: Tensor) -> None:
        self.law, self.reward = law, reward
        shape = torch.Size(law.counts.actions.shape)
        super().__init__(torch.Size(), shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log likelihood of the counts, nats."""
        with own_modes():
            if isinstance(self.law, KindsLikelihood):
                self._check_own(value)
                if self.law.transition.requires_grad:
                    return self.law.log_likelihood(self.reward)
                return bridge.differentiable(self.reward, self.law.evaluator())
            if self.law.transition.requires_grad:
                counts = self.law.counts._replace(actions=value.numpy())
                law = dataclasses.replace(self.law, counts=counts)
                return law.log_likelihood(self.reward)
            return bridge.differentiable(self.reward, self.law.evaluator(value.numpy()))

    def _check_own(self, value: Tensor) -> None:
        """Raise a `ValueError` unless counts are the panel's own."""
        if not np.array_equal(value.numpy(), self.law.counts.actions):
            raise ValueError(
                "counts of actions have no likelihood where the kinds of agents are not seen; it "
                "is that of the panel's own trajectories, one by one."
            )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw counts at the states that the panel visits, shape sample_shape + (T, S, A)."""
        with own_modes():
            policy = torch.as_tensor(self.law.log_policy(self.reward.detach().numpy())).exp()
            counts = torch.as_tensor(self.law.counts.actions)
            return draw_counts(policy, counts, sample_shape)


def draw_counts(policy: Tensor, counts: Tensor, sample_shape: Any = ()) -> Tensor:
    """Draw action counts with the row totals of `counts` by successive binomials."""
    left = counts.sum(-1).expand(torch.Size(sample_shape) + counts.shape[:-1])
    drawn, share_left = [], torch.ones_like(policy[..., 0])
    for a in range(policy.shape[-1] - 1):
        share = (policy[..., a] / share_left.clamp_min(1e-300)).clamp(0.0, 1.0)
        drawn.append(torch.binomial(left.contiguous(), share.expand(left.shape).contiguous()))
        left = left - drawn[-1]
        share_left = share_left - policy[..., a]
    return torch.stack([*drawn, left], dim=-1)
