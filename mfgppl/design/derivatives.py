"""What a change of the parameters does to the reward and to the policy along a flow."""

from typing import NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._compiler.forward_mode import load_rules
from mfgppl._generated_flow import flow_at_random
from mfgppl.control.steps import Steps
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program, latent_sites
from mfgppl.reward.program import RewardProgram, double_precision
from mfgppl.reward.soundness import check_program


class Slopes(NamedTuple):
    """Derivatives at one point of the parameters; K are unconstrained, P constrained.

    Attributes
    ----------
    features : Tensor, shape (K, T, S, A)
        Derivatives of the reward, zero where an action is not available.
    jacobian : ndarray, shape (P, K)
        Derivatives of the constrained in the unconstrained parameters.
    values : ndarray, shape (P,)
        The constrained parameters.
    largest : float
        Largest entry of the reward, without its sign.
    """

    features: Tensor
    jacobian: np.ndarray
    values: np.ndarray
    largest: float


def program_along(
    game: MeanFieldGame, reward: RewardProgram, mean_field: Tensor | None = None
) -> Program:
    """Return a checked reward program along a flow, by default of agents who act at random."""
    flow = flow_at_random(game).detach() if mean_field is None else mean_field
    inputs = RewardInputs(game, flow)
    latent_sites(reward, inputs)
    check_program(reward, inputs, coupled=False)
    return Program(reward, inputs)


def steps_of(program: Program) -> Steps:
    """Return the dynamics along a program's flow."""
    with torch.no_grad():
        return program.game.steps_along(program.mean_field)


def slopes_at(program: Program, theta: np.ndarray) -> Slopes:
    """Differentiate the reward and the constrained parameters in the unconstrained ones.

    Raises
    ------
    ValueError
        If a derivative is not finite, as at the edge of a prior's support.
    """

    def outcome(free: Tensor) -> tuple[Tensor, Tensor]:
        run = program.at(free)
        return run.reward, run.flat_values

    load_rules()
    point = torch.from_numpy(theta.copy())
    features, columns = [], []
    with double_precision(), pyro.validation_enabled(False):
        for along in torch.eye(len(theta)):
            slope, column = torch.func.jvp(outcome, (point,), (along,))[1]
            features.append(slope.detach())
            columns.append(column.detach())
        reward, values = outcome(point)
    largest = float(reward[torch.isfinite(reward)].abs().max())
    jacobian = torch.stack(columns, 1).numpy()
    slopes = Slopes(torch.stack(features), jacobian, values.numpy(), largest)
    sound = torch.isfinite(slopes.features).flatten(1).all(1).numpy()
    sound &= np.isfinite(slopes.jacobian).all(0)
    if not sound.all():
        names = [s.name for s in program.sites if not sound[s.start : s.stop].all()]
        values_there = dict(zip(program.entry_names(), slopes.values.tolist(), strict=True))
        raise ValueError(
            f"the reward has no finite derivative in {names[0]!r} at {values_there}; move "
            "`parameters` away from the edge of the prior's support."
        )
    return slopes


def advantages(features: Tensor, policy: Tensor, steps: Steps, game: MeanFieldGame) -> Tensor:
    """Return `Q_f - V_f` of each feature as a reward under a policy, (K, T, S, A).

    Under the soft policy of a reward this is temperature times the derivative of the log policy.

    Parameters
    ----------
    features : Tensor, shape (K, T, S, A)
        Rewards.
    policy : Tensor, shape (T, S, A)
        Probability of each action.
    steps : Steps
        The dynamics along the flow.
    game : MeanFieldGame
        Whose discount and horizon hold.
    """
    return torch.stack([_advantage(feature, policy, steps, game) for feature in features])


def _advantage(feature: Tensor, policy: Tensor, steps: Steps, game: MeanFieldGame) -> Tensor:
    by_time, values = [], torch.zeros_like(feature[0, :, 0])
    if game.stationary:
        paid = (policy[0] * feature[0]).sum(-1)
        values = steps.carried(0, policy[0], paid, discount=game.discount)
    for t in range(len(feature) - 1, -1, -1):
        follows = game.stationary or t < len(feature) - 1
        q = feature[t] + game.discount * steps.expected(t, values) if follows else feature[t]
        values = (policy[t] * q).sum(-1)
        by_time.append(q - values[:, None])
    return torch.stack(by_time[::-1])
