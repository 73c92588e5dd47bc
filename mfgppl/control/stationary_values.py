"""Discounted soft values at one reward after another: the last's factors serve the next.

Newton's step solves with `I - discount P`, P the transition under the soft policy. Its factors are
kept, here and from call to call, for as long as steps with them shrink tenfold.
"""

import numpy as np
import torch
from torch import Tensor

from mfgppl.control.steps import Factors, Steps
from mfgppl.exceptions import ConvergenceError

MOST_STEPS = 200
SLOWEST = 0.1  # of a step to its predecessor, beyond which factors are made anew
EXACT = 1e-14  # of a step, relative
ROUNDING = 1e-13  # relative, times 1 / (1 - discount): where steps may stop shrinking


class StationaryValues:
    """The soft control problem without a horizon, at one reward after another.

    Answers do not depend on those before, up to rounding. No derivatives are recorded.

    Parameters
    ----------
    steps : Steps
        The transition.
    discount, temperature : float
        The game's constants.
    """

    def __init__(self, steps: Steps, *, discount: float, temperature: float) -> None:
        self.steps, self.discount, self.temperature = steps, discount, temperature
        self._values: Tensor | None = None
        self._factors: Factors | None = None

    @torch.no_grad()
    def log_policy(self, reward: Tensor) -> Tensor:
        """Return the log policy (S, A) at a reward (S, A), -inf where nothing is available.

        Raises
        ------
        ConvergenceError
            If the values do not settle.
        """
        largest = float(reward.nan_to_num(neginf=0.0).abs().max())
        values = self._values
        if values is None:
            values = self._bellman(torch.zeros_like(reward[:, 0]), reward)[0]
        last, smallest, slow = torch.inf, torch.inf, self._factors is None
        for _ in range(MOST_STEPS):
            soft, log_policy = self._bellman(values, reward)
            fresh = slow
            factors = self._factors
            if fresh or factors is None:
                factors = self.steps.factors(0, log_policy.exp(), discount=self.discount)
            self._factors = factors
            change = factors.solved(soft - values)
            values = values + change
            size, scale = float(change.abs().max()), max(float(values.abs().max()), largest)
            if _settled(size, smallest, scale, discount=self.discount, fresh=fresh):
                self._values = values
                return self._bellman(values, reward)[1]
            slow, last, smallest = size > SLOWEST * last, size, min(smallest, size)
        self._values = self._factors = None
        raise ConvergenceError(
            f"the discounted values did not settle in {MOST_STEPS} steps (last change {size:.1e}); "
            "are all rewards finite?"
        )

    @torch.no_grad()
    def adjoint(self, policy: Tensor, right: Tensor) -> Tensor:
        """Return `(I - discount P')^-1 right`, (S,), with P under a policy (S, A)."""
        if self._factors is None:
            self._factors = self.steps.factors(0, policy, discount=self.discount)
        found, last, fresh = torch.zeros_like(right), torch.inf, False
        for _ in range(MOST_STEPS):
            pushed = self.steps.pushed(0, policy * found[:, None])
            change = self._factors.solved(right - found + self.discount * pushed, back=True)
            found = found + change
            size, scale = float(change.abs().max()), float(found.abs().max())
            if size <= EXACT * scale or (fresh and last <= scale and size >= last / 2):
                break
            if size > SLOWEST * last:
                self._factors = self.steps.factors(0, policy, discount=self.discount)
                fresh = True
            last = size
        return found

    def _bellman(self, values: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (S,) and the log policy (S, A) one step before values (S,)."""
        q = (reward + self.discount * self.steps.expected(0, values)) / self.temperature
        soft = torch.logsumexp(q, dim=-1)
        return self.temperature * soft, q - soft[:, None]


def _settled(size: float, smallest: float, scale: float, *, discount: float, fresh: bool) -> bool:
    """Whether steps have come down to rounding, which grows with 1 / (1 - discount)."""
    if size <= EXACT * scale:
        return True
    slow = size >= smallest / 2
    near = ROUNDING / max(1 - discount, np.finfo(float).eps)
    return slow and (smallest <= near * scale or (fresh and smallest <= 1e-6 * scale))
