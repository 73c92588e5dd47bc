"""Values at one reward after another, whose factors are kept, against those worked out anew."""

import numpy as np
import pytest
import torch
from equilibrium.kinds import made
from games import random_rows

from mfgppl.control.stationary_control import policy_iteration
from mfgppl.control.stationary_values import StationaryValues
from mfgppl.control.steps import as_steps
from mfgppl.data.panel import Counts
from mfgppl.likelihood.stationary_games import StationaryLikelihood

ROUNDING = 1e-9  # of values of size 10, times 1 / (1 - discount)
CASES = [("fixed", 0.8), ("fixed", 0.999), ("masked", 0.9), ("sparse", 0.9)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def problem(request):
    """Return the dynamics, rewards that move by little and by much, and the discount."""
    kind, discount = request.param
    game = made(kind, sizes=(4, 3), horizon=None, discount=discount, temperature=0.6)
    transition = game.transition_along(torch.as_tensor(random_rows(3, 1, 4)))
    rng = np.random.default_rng(5)
    start = rng.normal(size=(4, 3))
    steps = [0.0, 1e-6, 0.01, 0.3, 5.0, -20.0, 0.0]
    rewards = [
        np.where(game.available.numpy(), start + size * rng.normal(size=(4, 3)), -np.inf)
        for size in steps
    ]
    return transition, [torch.from_numpy(r) for r in rewards], discount


def test_answers_do_not_depend_on_those_before(problem):
    """Policies are policy iteration's, adjoints those of a system solved anew."""
    transition, rewards, discount = problem
    steps = as_steps(transition, 1)
    values = StationaryValues(steps, discount=discount, temperature=0.6)
    right = torch.from_numpy(np.random.default_rng(6).normal(size=4))
    for reward in rewards:
        found = values.log_policy(reward)
        anew = policy_iteration(reward[None], steps, discount=discount, temperature=0.6)
        torch.testing.assert_close(found, anew.log_policy[0], rtol=ROUNDING, atol=ROUNDING)
        policy = found.exp()
        torch.testing.assert_close(
            values.adjoint(policy, right),
            steps.carried(0, policy, right, discount=discount, back=True),
            rtol=ROUNDING, atol=ROUNDING,
        )  # fmt: skip


def test_slopes_of_policies_are_those_of_forward_mode(problem):
    """By one linear system for each direction, where autograd differentiates the iterations."""
    transition, rewards, discount = problem
    empty = np.zeros((1, 4))
    law = StationaryLikelihood(
        transition, Counts(np.zeros((1, 4, 3)), empty, empty, np.zeros((1, 4, 3))), discount, 0.6
    )
    change = torch.from_numpy(np.random.default_rng(7).normal(size=(1, 4, 3)))
    for reward in rewards[:4]:
        allowed = torch.isfinite(reward)[None]
        ((slope,),) = law.table_slopes(reward[None], change[None])
        expected = torch.func.jvp(
            law.tables, (reward[None],), (torch.where(allowed, change, 0.0),)
        )[1][0]
        torch.testing.assert_close(
            slope[allowed], expected[allowed], rtol=ROUNDING, atol=ROUNDING / (1 - discount)
        )
