"""Whether what data cannot identify of a reward matters in another world."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl._generated_flow import uniform_policy
from mfgppl.design.choices import NOBODY
from mfgppl.design.derivatives import advantages, program_along, slopes_at, steps_of
from mfgppl.design.identification import free_point, identify
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.program import RewardProgram

MATTERS = 1e-6  # effect on the policy, relative to the reward's change, that counts
ROUNDING = 1e-12  # of a change, relative to those of all parameters


def untold_that_matters(
    model: TrajectoryModel,
    changed: MeanFieldGame,
    reward: RewardProgram,
    parameters: Mapping[str, Any],
    mean_field: Tensor,
) -> tuple[str, ...] | None:
    """Name directions that a model's data cannot identify and that behaviour in a world depends on.

    A direction that is flat changes the reward by a shaping along the model's flow and dynamics;
    it matters where this is no shaping along the world's own.

    Parameters
    ----------
    model : TrajectoryModel
        The model, whose flow and dynamics say what data can identify.
    changed : MeanFieldGame
        The other world.
    reward : callable
        The reward program there.
    parameters : mapping of str to value
        Where rewards are differentiated.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow of the other world.

    Returns
    -------
    tuple of str, or None
        The directions in words; None where the reward has no derivative at `parameters`.
    """
    try:
        found = identify(
            model.game, model.reward, parameters=parameters, mean_field=model.mean_field
        )
        if found.identified:
            return ()
        program = program_along(changed, reward, mean_field)
        slopes = slopes_at(program, free_point(program, parameters))
    except ValueError:  # at the edge of a prior's support
        return None
    uniform = uniform_policy(changed)
    effects = advantages(slopes.features, uniform, steps_of(program), changed)
    shares = mean_field.sum(-1) if changed.joint else mean_field
    seen = (shares > NOBODY)[:, :, None] & changed.available
    inverse, matters = np.linalg.pinv(slopes.jacobian), []
    for name, direction in found.directions.iterrows():
        along = torch.from_numpy(inverse @ direction.to_numpy())
        effect, change = (
            torch.tensordot(along, table, 1)[seen] for table in (effects, slopes.features)
        )
        rounding = ROUNDING * float(slopes.features.norm())
        if float(effect.norm()) > max(MATTERS * float(change.norm()), rounding):
            matters.append(str(name))
    return tuple(matters)
