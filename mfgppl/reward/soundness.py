"""What a fit asks of a reward program: the same numbers at the same parameters, and gradients.

A program whose numbers change from run to run is refused. So is one whose reward or prior moves
with a parameter in a way that autograd does not see.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.distributions import biject_to

from mfgppl._compiler.tracing import GradientWatch
from mfgppl._modes import own_modes, seeded
from mfgppl.game import MeanFieldGame
from mfgppl.reward.behaviour import agent_of
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import (
    RewardProgram,
    double_precision,
    is_subsample,
    meet_sites,
    parameters_among,
    ran,
)
from mfgppl.reward.running import Met, Substitute, run_at

DRAWS = (1, 2)  # seeds of the draws from the prior where a program is looked at
RUNS = 8  # of a program that asks for random numbers, none of which need matter
SAME = 1e-12  # relative difference of numbers that are the same
STEPS = (1e-3, 1e-4)  # of central differences
SUMS_TO_ZERO = 1e-6  # change of the sum of a shock over time, relative to its largest entry
LOST = 1e-3  # relative difference of a slope from autograd's
ROUNDING = 1e-11  # of a sum, relative to its terms, over the smaller step
FLOW = "the flow"  # what it is called among the parameters
REMEDY = (
    "Keep it a tensor: torch.exp instead of math.exp, torch.stack instead of torch.tensor, "
    "torch.as_tensor(array) of a NumPy array that it meets, and no item(), numpy() or detach()."
)

Values = dict[str, Tensor]
Outcome = Callable[[Values], list[Tensor]]  # flat tables and log densities, each a tensor


class Point(NamedTuple):
    """Where a program is looked at.

    Attributes
    ----------
    values : dict of str to Tensor
        Unconstrained values of latent sites, and the flow where the equilibrium moves it.
    changes : dict of str to Tensor
        A direction for each.
    """

    values: Values
    changes: Values


def check_program(program: RewardProgram, inputs: RewardInputs, *, coupled: bool) -> None:
    """Raise a `ValueError` that says why a reward program cannot be fitted.

    Parameters
    ----------
    program : callable
        The reward program.
    inputs : RewardInputs
        The game along a flow.
    coupled : bool
        Whether the flow moves with the parameters, so that its gradient counts too.
    """
    mean_field = inputs.whole_flow
    with (
        own_modes(gradients=True),
        double_precision(),
        pyro.validation_enabled(False),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of what is about to be refused, or was said before
        shocks: list[Tensor] = []
        for seed in DRAWS:
            values = _prior_draw(program, inputs, seed)
            if seed == DRAWS[0]:
                _check_repeats(program, inputs, values)
            flow = {FLOW: mean_field} if coupled else {}
            point = Point({**values, **flow}, _changes({**values, **flow}, seed))
            with chance(seed):
                shocks.append(_shock_at(program, inputs, values))
                _check_gradients(_outcome(program, inputs.game, inputs), point)
        _check_shocks(shocks)


def _shock_at(program: RewardProgram, inputs: RewardInputs, values: Values) -> Tensor:
    """Return the shocks (T, S, A) at parameters, zero where there are none."""
    with torch.no_grad(), pyro.poutine.block(), Substitute(_constrained_values(values)):
        shocks = [agent_of(own).shock for own in ran(program, inputs).each()]
    known = [shock for shock in shocks if shock is not None]
    return torch.cat(known, -1) if known else torch.zeros(1, 1, 1, dtype=torch.float64)


def _check_shocks(shocks: Sequence[Tensor]) -> None:
    """Raise a `ValueError` where the mean of a shock over time moves with the parameters."""
    largest = max(float(shock.abs().max()) for shock in shocks)
    sums = [shock.sum(0) for shock in shocks]
    if max(float((one - sums[0]).abs().max()) for one in sums) > SUMS_TO_ZERO * largest:
        raise ValueError(
            "the shock does not sum to zero over time. What agents expect of it is foreseen and "
            "belongs to the reward; left free, the mean of a shock cancels a reward that is "
            "foreseen, and the likelihood has no maximum. Draw it with mfg.period_effects, or take "
            "its mean over time away."
        )


def _prior_draw(program: RewardProgram, inputs: RewardInputs, seed: int) -> Values:
    """Return unconstrained values of the latent sites at a draw from the prior."""
    with chance(seed), torch.no_grad(), pyro.poutine.block(), pyro.poutine.trace() as tracer:
        meet_sites(program, inputs)
    for name, site in tracer.trace.nodes.items():
        if is_subsample(site) and site["fn"].subsample_size not in (None, site["fn"].size):
            raise ValueError(
                f"the plate {name!r} of the reward program takes a random subsample, "
                f"{site['fn'].subsample_size} of {site['fn'].size}, at each run; leave out "
                "`subsample_size`: the likelihood is exact."
            )
    return {
        name: _unconstrained_value(name, site["fn"], site["value"])
        for name, site in parameters_among(tracer.trace.nodes).items()
    }


def _unconstrained_value(name: str, fn: Any, value: Tensor) -> Tensor:
    """Return the unconstrained value of a site, else raise that its support has no map."""
    try:
        onto = biject_to(fn.support)
        free: Tensor = onto.inv(value)
        if onto(free).shape == value.shape:
            return free
    except NotImplementedError:
        pass
    raise ValueError(
        f"the latent site {name!r} ({type(fn).__name__}) has a support, {fn.support}, that torch "
        "cannot map from unconstrained numbers; give it another prior."
    )


@contextmanager
def chance(seed: int) -> Iterator[Callable[[], bool]]:
    """Seed the global generators within the block; yields whether any has been used since."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with seeded(seed):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        fresh = _states()
        try:
            yield lambda: _states() != fresh
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def _states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    key = (numpy_state["key"].tobytes(), numpy_state["pos"])
    return torch.get_rng_state().numpy().tobytes(), key, random.getstate()


def _check_repeats(program: RewardProgram, inputs: RewardInputs, values: Values) -> None:
    """Raise if two runs at the same parameters, with other random numbers, differ."""
    first: Met | None = None
    for seed in range(RUNS):
        with chance(seed) as used, torch.no_grad():
            met = run_at(program, inputs, _constrained_values(values))
            asked = used()
        if first is None:
            first = met
            continue
        changed = _name_of_difference(first, met)
        if changed:
            raise ValueError(
                f"two runs of the reward program at the same parameters give another {changed}: "
                "it must not draw random numbers. Draw them once, outside; what is unknown is a "
                "`pyro.sample` site."
            )
        if not asked:
            return


def _name_of_difference(first: Met, second: Met) -> str | None:
    """Return the name of what differs between two runs."""
    if set(first.log_priors) != set(second.log_priors):
        return "set of sites"
    pairs = {"reward": (first.answer.core, second.answer.core)}
    for name, log_prior in first.log_priors.items():
        pairs[f"log density of {name!r}"] = log_prior, second.log_priors[name]
    for name, (one, other) in pairs.items():
        if not torch.allclose(one, other, rtol=SAME, atol=0.0, equal_nan=True):
            return name
    return None


def _constrained_values(values: Mapping[str, Tensor]) -> Callable[[str, Any], Tensor]:
    """Return the values of sites by their unconstrained ones."""

    def value_of(name: str, fn: Any) -> Tensor:
        if name not in values:
            raise ValueError(
                f"the reward program has the latent site {name!r} in some runs only; declare all "
                "sites in each run, whatever the values of others."
            )
        value: Tensor = biject_to(fn.support)(values[name])
        return value

    return value_of


def _outcome(program: RewardProgram, game: MeanFieldGame, inputs: RewardInputs) -> Outcome:
    """Return the program's reward and log prior, and the dynamics, as functions of a point."""

    def outcome(values: Values) -> list[Tensor]:
        flow = values.get(FLOW)
        seen = inputs if flow is None else inputs.along(flow)
        met = run_at(program, seen, _constrained_values(values))
        tensors = [met.answer.core, torch.stack(list(met.log_priors.values()))]
        if flow is not None and game.crowd_moves_dynamics:
            tensors.append(game.transition_along(flow))
        return tensors

    return outcome


def _changes(values: Values, seed: int) -> Values:
    """Return a random direction for each value, of the flow one between distributions."""
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for name, value in values.items():
        change = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if name == FLOW:
            within = tuple(range(1, value.ndim))
            change = change - (value * change).sum(within, keepdim=True)
        changes[name] = change * torch.where(value == 0, float(name != FLOW), value.abs())
    return changes


def _check_gradients(outcome: Outcome, point: Point) -> None:
    """Raise if the outcome moves with what its gradient does not see."""
    watch = GradientWatch()

    def watched(values: Values) -> list[Tensor]:
        with watch:
            return outcome(values)

    try:
        slopes = _slopes(watched, point, list(point.values))
    except RuntimeError as error:
        lost = [name for name in point.values if _raises(outcome, point, name)]
        _refuse(lost or list(point.values), str(error))
    suspects = [name for name in point.values if watch.calls or torch.isnan(slopes[name]).any()]
    lost = [name for name in suspects if _is_lost(outcome, point, name, slopes[name])]
    if lost:
        _refuse(lost, ", ".join(f"`{call}`" for call in dict.fromkeys(watch.calls)))


def _refuse(lost: Sequence[str], reason: str) -> NoReturn:
    named = ", ".join(name if name == FLOW else repr(name) for name in lost)
    raise ValueError(
        f"the reward program loses the gradient of {named}, which leaves torch on the way to the "
        f"reward or to a prior{f' ({reason})' if reason else ''}. {REMEDY}"
    )


def _slopes(outcome: Outcome, point: Point, names: Sequence[str]) -> dict[str, Tensor]:
    """Return autograd's slopes of each weighed outcome along each change; NaN where unconnected."""
    at = {k: v.detach().clone().requires_grad_(k in names) for k, v in point.values.items()}
    by_name: dict[str, list[float]] = {name: [] for name in names}
    for total, _ in _weighted_sum(outcome(at)):
        wanted = [at[name] for name in names]
        slopes: Sequence[Tensor | None] = [None] * len(names)
        if total.requires_grad:
            slopes = torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True)
        for name, slope in zip(names, slopes, strict=True):
            along = torch.nan if slope is None else float((slope * point.changes[name]).sum())
            by_name[name].append(along)
    return {name: torch.tensor(values) for name, values in by_name.items()}


def _weighted_sum(outcomes: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return a weighed sum of the finite entries of each outcome, and of their sizes."""
    generator, sums = torch.Generator().manual_seed(0), []
    for values in outcomes:
        weights = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        finite = torch.where(torch.isfinite(values.detach()), values, 0.0) * weights
        sums.append((finite.sum(), finite.detach().abs().sum()))
    return sums


def _raises(outcome: Outcome, point: Point, name: str) -> bool:
    """Return whether the outcome cannot be differentiated in one of the values."""
    try:
        _slopes(outcome, point, [name])
    except RuntimeError:
        return True
    return False


def _is_lost(outcome: Outcome, point: Point, name: str, slopes: Tensor) -> bool:
    """Return whether differences of an outcome contradict its slopes along one change.

    At two steps, so that a kink or a jump near the point is not held against it.
    """
    expected = slopes.nan_to_num(0.0)
    differences = []
    for step in STEPS:
        with torch.no_grad():
            above, below = (
                _weighted_sum(outcome({**point.values, name: value}))
                for value in (
                    point.values[name] + step * point.changes[name],
                    point.values[name] - step * point.changes[name],
                )
            )
        rise = [float(a - b) / (2 * step) for (a, _), (b, _) in zip(above, below, strict=True)]
        differences.append(torch.tensor(rise))
    sizes = torch.stack([size for _, size in above])
    coarse, fine = differences
    known = 3 * (coarse - fine).abs() + ROUNDING * sizes
    off = torch.ones_like(expected, dtype=torch.bool)
    for difference in differences:
        largest = torch.maximum(difference.abs(), expected.abs())
        off &= (difference - expected).abs() > LOST * largest + known
    return bool(off.any())
