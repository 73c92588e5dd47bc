"""A run of a reward program at given parameters, and the log prior of what it met."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import (
    Answered,
    RewardProgram,
    answered,
    is_parameter,
    is_subsample,
    parameters_among,
)


class Met(NamedTuple):
    """What one run of a reward program met.

    Attributes
    ----------
    answer : Answered
        The tables that agents answer.
    values : dict of str to Tensor
        Latent parameters.
    deterministics : dict of str to Tensor
        What the program records with `pyro.deterministic`.
    log_priors : dict of str to Tensor
        Log densities of latent parameters, factors and observed sites, by site.
    """

    answer: Answered
    values: dict[str, Tensor]
    deterministics: dict[str, Tensor]
    log_priors: dict[str, Tensor]


class Substitute(Messenger):
    """Give latent sites their values from a function of the site."""

    def __init__(self, value_of: Callable[[str, Any], Tensor]) -> None:
        super().__init__()
        self.value_of = value_of

    def _pyro_sample(self, msg: Any) -> None:
        if is_parameter(msg):
            msg["value"] = self.value_of(msg["name"], msg["fn"])
            msg["done"] = True


def run_at(
    program: RewardProgram, inputs: RewardInputs, value_of: Callable[[str, Any], Tensor]
) -> Met:
    """Run a reward program with the values of its latent sites from a function of the site."""
    with pyro.poutine.block(), pyro.poutine.trace() as tracer, Substitute(value_of):
        answer = answered(program, inputs)
    values = {k: node["value"] for k, node in parameters_among(tracer.trace.nodes).items()}
    deterministics, priors = {}, {}
    for name, node in tracer.trace.nodes.items():
        if node["type"] != "sample" or is_subsample(node):
            continue
        if node["infer"].get("_deterministic"):
            deterministics[name] = node["value"]
            continue
        with _without_validation(node["fn"]):
            log_prob = node["fn"].log_prob(node["value"])
        priors[name] = scale_and_mask(log_prob, node["scale"], node["mask"]).sum()
    return Met(answer, values, deterministics, priors)


@contextmanager
def _without_validation(fn: Any) -> Iterator[None]:
    """Let a distribution made elsewhere skip its checks, which cannot be traced."""
    changed = []
    todo = [fn]
    while todo:
        one = todo.pop()
        changed.append((one, one.__dict__.get("_validate_args")))
        one._validate_args = False
        parts = ("base_dist", "_mixture_distribution", "_component_distribution")
        todo += [vars(one)[name] for name in parts if name in vars(one)]
    try:
        yield
    finally:
        for inner, before in changed:
            if before is None:
                inner.__dict__.pop("_validate_args", None)
            else:
                inner._validate_args = before
