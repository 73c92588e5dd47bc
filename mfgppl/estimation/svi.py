"""Stochastic variational inference with a point guide: the first steps of a climb."""

import inspect
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import PyroOptim
from pyro.optim.clipped_adam import ClippedAdam
from torch.distributions import constraints

from mfgppl._arguments import torch_seed
from mfgppl._kernels import bridge
from mfgppl._modes import seeded
from mfgppl._progress import progress
from mfgppl.density.climb import Objective
from mfgppl.reward.program import double_precision


class InUnits(ClippedAdam):
    """Pyro's Adam on parameters in given units: its fixed step is one of these, not of one."""

    # torch's own keeps `torch.compile` out, and loads that compiler for it: half of a first fit
    add_param_group = inspect.unwrap(ClippedAdam.add_param_group)

    def __init__(self, params: Any, lr: float, unit: torch.Tensor) -> None:
        super().__init__(params, lr=lr)
        self.unit = unit

    def step(self, closure: Any = None) -> Any:
        """Take a step in the parameter's units."""
        (p,) = self.param_groups[0]["params"]  # Pyro makes an optimiser for each
        before = p.detach().clone()
        p.grad *= self.unit
        loss = super().step(closure)
        p.data.copy_(before + self.unit * (p.data - before))
        return loss


def run_svi(
    objective: Objective,
    start: np.ndarray,
    units: np.ndarray,
    *,
    n_steps: int,
    learning_rate: float,
    random_seed: int,
    progressbar: bool,
) -> np.ndarray:
    """Take SVI steps with a point guide, in a parameter store of their own.

    The model that Pyro meets has one site, the unconstrained parameters, and a factor, the compiled
    objective: the reward program itself does not run.

    Parameters
    ----------
    objective : Objective
        What is climbed.
    start, units : ndarray, shape (K,)
        Unconstrained parameters, and the step of each that is of order one.

    Returns
    -------
    ndarray, shape (K,)
        Where the steps end; the start, if the objective is not finite there.
    """
    if n_steps == 0:
        return start

    def target() -> None:
        flat = dist.ImproperUniform(constraints.real_vector, (), (start.size,))
        theta = pyro.sample("theta", flat)
        pyro.factor("height", bridge.differentiable(theta, objective.value_and_gradient))

    options = {"lr": learning_rate, "unit": torch.tensor(units)}
    init = init_to_value(values={"theta": torch.tensor(start)})  # a copy, which steps change
    with double_precision(), pyro.get_param_store().scope(), seeded(torch_seed(random_seed)):
        guide = AutoDelta(target, init_loc_fn=init)
        svi = SVI(target, guide, PyroOptim(InUnits, options), Trace_ELBO())
        for _ in progress(range(n_steps), "SVI", progressbar):
            svi.step()
        end = guide()["theta"].detach().numpy().copy()
    return end if np.isfinite(objective.value_and_gradient(end)[0]) else start
