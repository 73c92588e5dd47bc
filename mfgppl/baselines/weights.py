"""A reward program as a function of one flat vector of unconstrained parameters."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from torch import Tensor
from torch.distributions import biject_to

from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import (
    RewardProgram,
    bind,
    double_precision,
    is_parameter,
    reward_table,
    spread_reward,
)


class Weights:
    """The latent sites of a reward program in one vector; their priors play no part.

    A site's support is what its prior has it: the vector holds unconstrained values.

    Parameters
    ----------
    program : callable
        A reward program.
    inputs : RewardInputs
        Where it is run once, to note its sites.
    seed : int
        Seed of the start, a draw from the priors.

    Raises
    ------
    ValueError
        If the program has no latent site, or one that is no continuous variable.
    """

    def __init__(self, program: RewardProgram, inputs: RewardInputs, seed: int) -> None:
        self.program = program
        with double_precision(), torch.random.fork_rng(devices=[]), pyro.poutine.trace() as tracer:
            torch.manual_seed(seed)
            reward_table(program, inputs)
        sites = {name: node for name, node in tracer.trace.nodes.items() if is_parameter(node)}
        _check(tracer.trace.nodes, sites)
        self.transforms = {name: biject_to(node["fn"].support) for name, node in sites.items()}
        free = {k: t.inv(sites[k]["value"]) for k, t in self.transforms.items()}
        self.shapes = {name: value.shape for name, value in free.items()}
        self.start = torch.cat([value.reshape(-1) for value in free.values()]).detach().numpy()

    def values(self, point: Tensor) -> dict[str, Tensor]:
        """Return the value of each site at a point."""
        found, begin = {}, 0
        for name, shape in self.shapes.items():
            end = begin + math.prod(shape)
            found[name] = self.transforms[name](point[begin:end].reshape(shape))
            begin = end
        return found

    def table(self, point: Tensor, inputs: RewardInputs) -> Tensor:
        """Return the reward table (T, S, A) at a point, differentiable."""
        data = self.values(point)
        with (
            pyro.validation_enabled(False),
            pyro.poutine.block(),
            pyro.poutine.condition(data=data),
        ):
            return spread_reward(self.program, inputs)

    def numbers(self, point: np.ndarray) -> dict[str, Tensor]:
        """Return the value of each site at a point, without derivatives."""
        with double_precision(), torch.no_grad():
            return {k: v.clone() for k, v in self.values(torch.as_tensor(point)).items()}

    def series(self, point: np.ndarray) -> pd.Series:
        """Return the values by name, an entry each."""
        named: dict[str, float] = {}
        for name, value in self.numbers(point).items():
            for index in np.ndindex(*value.shape):
                label = f"{name}[{', '.join(map(str, index))}]" if index else name
                named[label] = float(value[index])
        return pd.Series(named, dtype=float)

    def bound(self, point: np.ndarray) -> RewardProgram:
        """Return the program with its parameters fixed."""
        return bind(self.program, self.numbers(point))


def _check(nodes: Mapping[str, Any], sites: Mapping[str, Any]) -> None:
    for name, node in nodes.items():
        if node["type"] == "param":
            raise ValueError(
                f"the reward program has the `pyro.param` site {name!r}; declare it with "
                "`pyro.sample`, whose prior plays no part here."
            )
    for name, node in sites.items():
        if getattr(node["fn"].support, "is_discrete", False):
            raise ValueError(
                f"the latent site {name!r} is discrete ({type(node['fn']).__name__}); reward "
                "parameters must be continuous."
            )
    if not sites:
        raise ValueError(
            "`reward` has no latent site, so there is nothing to recover; declare its parameters "
            "with `pyro.sample`."
        )


def seen_through(program: RewardProgram, flow: Tensor) -> RewardProgram:
    """Return a reward program that sees a fixed flow in place of the crowd's."""

    @functools.wraps(program, assigned=("__doc__",), updated=())
    def blind(x: RewardInputs) -> Any:
        return program(RewardInputs(x._game, flow))

    return blind
