"""Stochastic variational inference with a point guide: the first steps of a climb."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import PyroOptim
from pyro.optim.clipped_adam import ClippedAdam
from pyro.poutine.messenger import Messenger

from mfgppl._arguments import torch_seed
from mfgppl._modes import seeded
from mfgppl._progress import progress
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.names import OBSERVED
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
        # Pyro takes a simplex to logarithms of its entries, which have no units
        unit = self.unit if self.unit.shape == p.shape else torch.ones_like(p)
        before = p.detach().clone()
        p.grad *= unit
        loss = super().step(closure)
        p.data.copy_(before + unit * (p.data - before))
        return loss


class _OnlyLikelihood(Messenger):
    """Leave out all sites of a model but the observed ones."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"].rsplit("/")[-1] not in OBSERVED:
            msg["mask"] = False


class _Numbered(Messenger):
    """Call latent sites by number: a guide keeps values as attributes, which have names too."""

    def __init__(self, numbers: Mapping[str, str]) -> None:
        super().__init__()
        self.numbers = numbers

    def _pyro_sample(self, msg: Any) -> None:
        msg["name"] = self.numbers.get(msg["name"], msg["name"])


def run_svi(
    model: TrajectoryModel,
    start: dict[str, Any],
    units: dict[str, np.ndarray],
    *,
    n_steps: int,
    learning_rate: float,
    random_seed: int,
    prior: bool,
    progressbar: bool,
) -> dict[str, Any]:
    """Take SVI steps with a point guide, in a parameter store of their own.

    Parameters
    ----------
    start : dict of str to array
        Constrained values, by site.
    units : dict of str to array
        Step of order one of each unconstrained value, by site.
    prior : bool
        Whether the prior counts.
    """
    if n_steps == 0:
        return start
    numbers = {name: f"site_{k}" for k, name in enumerate(start)}
    target = _Numbered(numbers)(model if prior else _OnlyLikelihood()(model))
    init = {numbers[k]: torch.tensor(v, dtype=torch.float64) for k, v in start.items()}
    steps = {numbers[k]: torch.tensor(v, dtype=torch.float64) for k, v in units.items()}

    def options(name: str) -> dict[str, Any]:
        return {"lr": learning_rate, "unit": steps[name.partition(".")[2]]}

    with double_precision(), pyro.get_param_store().scope(), seeded(torch_seed(random_seed)):
        guide = AutoDelta(target, init_loc_fn=init_to_value(values=init))
        svi = SVI(target, guide, PyroOptim(InUnits, options), Trace_ELBO())
        for _ in progress(range(n_steps), "SVI", progressbar):
            svi.step()
        point = guide()
    return {name: point[k].detach().numpy().copy() for name, k in numbers.items()}
