"""What coefficients and the crowd mean: effects on choices and on flows, in probability.

With n_t(s) the decisions seen, N their number, pi the policy and F(theta, nu) the flow that it
generates, both along a flow nu, and J = F_nu:

    of a coefficient, flow held     (1/N) sum_ts n_t(s) dpi_t(a|s)/dtheta        on choices
                                    (1/T) sum_t dF_t(s)/dtheta                   on the crowd
    through equilibrium             dnu = (I - J)^-1 F_theta dtheta, and its part of the choices
    of a point of the crowd         nu moved towards a state, (1 - d) nu + d m, at all times
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri

from mfgppl._arguments import names_of, positive_int, real_between, strict_keywords, suggestion
from mfgppl.counterfactuals.effects_record import (
    AVERAGE,
    CHOICE,
    CROWD,
    EFFECTS,
    FLOW,
    LARGER,
    OF_CROWD,
    Effects,
    choice_of,
    relative,
    worth,
)
from mfgppl.counterfactuals.shares_of_crowd import raised, shares_read, towards
from mfgppl.data.space import state_labels, text_labels
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.equilibrium.flat_flows import Array, flat_shape
from mfgppl.equilibrium.images import Image
from mfgppl.equilibrium.iterations import Budget, find_fixed_point
from mfgppl.equilibrium.linearisation import AnyResponseMap, inverse, moved_map
from mfgppl.estimation.delta_method import variances_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.exceptions import ConvergenceError
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import needs_causal, observed_flow
from mfgppl.posterior.policies import Fit, values_of

INNER, OUTER = 1e-4, 1e-3  # of central differences, in the size of a parameter and its error
TOWARDS = 1e-4  # share of the crowd that is moved
SETTLED = Budget(1e-11, 2000)
Rows = dict[tuple[str, str, str], float]  # by what they are of, which effect, and on what


@strict_keywords
def effects(
    model: TrajectoryModel,
    fit: Fit,
    *,
    of: str | Sequence[str] | None = None,
    per: str | None = None,
    states: int = 12,
    draws: int = 200,
    ci_prob: float = 0.9,
    kind: str = "observed",
    groups: str | None = None,
) -> Effects:
    """Say what coefficients mean in probability, and what the crowd does to choices.

    Average marginal effects of each coefficient on the choices that the panel's agents made and on
    the crowd: along the flow held, as if one agent alone were other, and through equilibrium, as
    if all were; elasticities; and what one percentage point more of the crowd in a state does.

    Through equilibrium the derivative is that of the implicit function theorem, taken at the flow
    along which the model stands. It is exact where that flow is an equilibrium; `residual` says
    how far it is from one.

    Parameters
    ----------
    model : TrajectoryModel
        The fitted model, with the causal likelihood.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, whose quantiles are the intervals; a point estimate, with standard errors
        by the delta method; or values by site, without intervals.
    of : str or list of str, optional
        Parameters, an entry as "cost[2]" and a vector by its name; by default all.
    per : str, optional
        A parameter in whose unit the others are given as well: their ratios to it, as a price
        coefficient makes money of utility. The scale of rewards, which choices do not show, cancels
        in them.
    states : int
        How many states of the crowd to move, the most visited.
    draws : int
        Draws to use at most, evenly spaced, as many of each chain: 50 of four chains are 48.
    ci_prob : float in (0, 1)
        Mass of the intervals: equal-tailed of draws, Wald of a point.
    kind, groups
        Of a point's covariance, as in `PointEstimate.cov_params`.

    Returns
    -------
    Effects
        Its `table` has one row per effect; `sentences` puts them into words.

    Raises
    ------
    ValueError
        If a name is no parameter, or the likelihood is not causal.

    References
    ----------
    .. [1] Wooldridge (2010), *Econometric analysis of cross section and panel data*, section 2.2.
    .. [2] Train (2009), *Discrete choice methods with simulation*, sections 3.3.1 and 3.6.
    """
    values, kept = values_of(model, fit, positive_int("draws", draws))
    needs_causal(model, "effects")
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    names = density_of(model).program.entry_names()
    chosen = _chosen(names, "of", names if of is None else of)
    (unit,) = _chosen(names, "per", per) if per is not None else (None,)
    world = _world_of(model, positive_int("states", states))
    sizes = _sizes(fit, values)
    measure = functools.partial(_measured, world, names, chosen, unit, sizes)
    if isinstance(fit, PointEstimate):
        found = _around_point(measure, fit, sizes, ci_prob, kind=kind, groups=groups)
    else:
        found = _over_draws([measure(value) for value in values], kept is not None, ci_prob)
    return Effects(
        found.table, per, ci_prob, found.kind, found.n_draws, found.n_failed, world.residual,
        model.nodes is not None, found.messages, tuple(share.words for share in world.read),
    )  # fmt: skip


def _chosen(names: list[str], argument: str, given: str | Sequence[str]) -> list[str]:
    """Return the entries that names of parameters or of their entries stand for."""
    chosen = []
    for name in names_of(argument, given, "parameter's name"):
        entries = [entry for entry in names if entry == name or entry.startswith(f"{name}[")]
        if not entries:
            hint = suggestion(str(name), names) or f" the parameters are {', '.join(names)}."
            raise ValueError(f"`{argument}` names {name!r}, which is no parameter;{hint}")
        chosen += entries
    if argument == "per" and len(chosen) != 1:
        raise ValueError(f"`per` must name one number; {given!r} has {len(chosen)} entries.")
    return list(dict.fromkeys(chosen))


def _sizes(fit: Fit, values: Array) -> Array:
    """Return how far each parameter (P,) may move, by its error or spread and its value."""
    spread = fit.bse.to_numpy() if isinstance(fit, PointEstimate) else values.std(0)
    sizes = np.fmax(np.abs(values).mean(0), spread)
    return np.where(sizes > 0, sizes, 1.0)


class _Response(NamedTuple):
    """What agents do along a flow: choices and next states by mean over decisions, their flow."""

    choices: Array
    arrivals: Array
    flow: Array

    def minus(self, other: "_Response", step: float) -> "_Response":
        return _Response(*((a - b) / step for a, b in zip(self, other, strict=True)))


class _World:
    """Agents of kinds that are seen: their response to a flow, and where the crowd settles."""

    def __init__(self, model: TrajectoryModel, states: int) -> None:
        self.model, self.game = model, model.game
        self.program = density_of(model).program
        visits = model.law.counts.actions.sum(-1)
        self.weights = visits / visits.sum()
        followed = visits if self.game.stationary else visits[:-1]  # by a next state
        self.followed = followed / max(followed.sum(), 1.0)
        self.held = model.mean_field.detach().numpy().reshape(flat_shape(self.game)).copy()
        self.within = self.game.space.within.size
        seen = visits.sum(0).reshape(-1, self.within).sum(0)
        reads = model.reads_flow and self.within > 1
        self.moved = (
            np.sort(np.argsort(-seen, kind="stable")[:states]) if reads else np.zeros(0, int)
        )
        self.states = state_labels(self.game.space.within)
        self.read = shares_read(model)
        self.residual = 0.0
        self._arrives = self._arrivals(self.held)
        self._kept: AnyResponseMap | None = None

    def start(self, values: Array) -> tuple[AnyResponseMap, Array]:
        """Return the response map at constrained parameters (P,), and the flow that is held."""
        response_map = self.at(values)
        if not self.model.coupled:
            return response_map, self.held
        known = observed_flow(self.model).numpy().reshape(self.held.shape).copy()
        flow = find_fixed_point(response_map, known, self.game.temperature, SETTLED).image.flow
        if self.game.crowd_moves_dynamics:
            self._arrives = self._arrivals(flow)
        return response_map, flow

    def at(self, values: Array) -> AnyResponseMap:
        """Return the response map at constrained parameters (P,); it is moved by the next call."""
        self._kept = moved_map(self._kept, self.game, self.model.reward, self.program, values)
        return self._kept

    def image(self, values: Array, flow: Array) -> Image:
        return self.at(values).image(flow, self.game.temperature)

    def answer(self, image: Image) -> _Response:
        """Return choices (A,), arrivals (M,) and the generated flow (T, F) of a response."""
        choices = np.einsum("ts,tsa->a", self.weights, image.policy)
        arrivals = np.tensordot(self._arrives, image.policy, 3)
        return _Response(choices, arrivals, image.generated)

    def shares(self, flow: Array) -> Array:
        """Return the mean share of each state (S,) over time, over all types and actions."""
        by_state = flow.reshape(len(flow), self.game.shape[1], -1).sum(-1)
        return np.asarray(by_state.reshape(len(flow), -1, self.within).sum(1).mean(0))

    def _arrivals(self, flow: Array) -> Array:
        """Return what a choice adds to the share of next states that are one moved (M, T, S, A)."""
        with torch.no_grad():
            along = torch.from_numpy(flow.copy()).reshape(self.game.flow_shape)
            steps = self.game.steps_along(along)
        found = np.zeros((len(self.moved), *self.game.shape))
        for place, state in zip(found, self.moved, strict=True):
            there = torch.zeros(self.game.shape[1] // self.within, self.within, dtype=torch.float64)
            there[:, state] = 1.0
            for t, weights in enumerate(self.followed):
                place[t] = steps.expected(t, there.reshape(-1)).numpy() * weights[:, None]
        return found


class _UnseenKinds:
    """Agents whose kinds are not seen: their choices alone, at the shares in which they are each.

    The shares are those of the parameters at which the effects are taken, and held.
    """

    moved, read, residual, coupled = np.zeros(0, int), (), 0.0, False

    def __init__(self, model: TrajectoryModel, law: KindsLikelihood) -> None:
        self.model, self.game, self.law = model, model.game, law
        self.density: LogDensity = density_of(model)

    def visits(self, values: Array) -> Array:
        """Return the decisions (N, T, S) of agents of each kind."""
        core = np.ascontiguousarray(self.density.rewards(values[None])[0])
        return self.law.expected_counts(self.law.posterior(core).share)[0].sum(-1)

    def choices(self, values: Array, visits: Array) -> Array:
        """Return the mean probability of each action (A,) over decisions."""
        core = np.ascontiguousarray(self.density.rewards(values[None])[0])
        policy = np.exp(self.law.table_arrays(core)[0])
        return np.einsum("nts,ntsa->a", visits, policy) / visits.sum()


def _world_of(model: TrajectoryModel, states: int) -> _World | _UnseenKinds:
    if model.nodes is None:
        return _World(model, states)
    if model.coupled or not isinstance(model.law, KindsLikelihood):
        raise ValueError(
            "effects of agents of unseen kinds are taken along a flow that is held; use "
            "mean_field='empirical', or an array."
        )
    return _UnseenKinds(model, model.law)


def _measured(
    world: _World | _UnseenKinds, names: list[str], of: list[str], per: str | None, sizes: Array,
    values: Array,
) -> Rows:  # fmt: skip
    """Return all effects by what they are of, which effect and on what, at parameters (P,)."""
    rows: Rows = dict(_ratios(names, of, per, values))
    if isinstance(world, _UnseenKinds):
        rows |= dict(_of_kinds(world, names, of, sizes, values))
    else:
        rows |= dict(_of_crowd(world, names, of, sizes, values))
    return rows


def _ratios(names: list[str], of: list[str], per: str | None, values: Array) -> Any:
    if per is not None:
        for name in of:
            if name != per:
                yield (name, worth(per), ""), values[names.index(name)] / values[names.index(per)]


def _moves(values: Array, k: int, step: float) -> tuple[Array, Array]:
    up, down = values.copy(), values.copy()
    up[k] += step
    down[k] -= step
    return up, down


def _of_kinds(
    world: _UnseenKinds, names: list[str], of: list[str], sizes: Array, values: Array
) -> Any:
    visits = world.visits(values)
    level = world.choices(values, visits)
    for name in of:
        k = names.index(name)
        up, down = _moves(values, k, INNER * sizes[k])
        slope = (world.choices(up, visits) - world.choices(down, visits)) / (2 * INNER * sizes[k])
        yield from _on_choices(world, name, "held", slope, level, values[k])


def _on_choices(world: Any, name: str, how: str, slope: Array, level: Array, value: float) -> Any:
    for action, change, share in zip(text_labels(world.game.actions), slope, level, strict=True):
        yield (name, CHOICE[how], action), change
        yield (name, LARGER[how], action), 0.1 * value * change
        yield (name, relative(how), action), value * change / share if share > 0 else np.nan


def _of_crowd(world: _World, names: list[str], of: list[str], sizes: Array, values: Array) -> Any:
    response_map, flow = world.start(values)
    here = response_map.image(flow, world.game.temperature)
    world.residual = max(world.residual, here.residual)
    level = world.answer(here)
    alone = {}
    for name in of:
        k = names.index(name)
        step = INNER * sizes[k]
        up, down = (world.answer(world.image(v, flow)) for v in _moves(values, k, step))
        alone[name] = up.minus(down, 2 * step)
    response_map = world.at(values)
    settle = _settling(response_map, here, world.game.temperature)
    for name in of:
        value = values[names.index(name)]
        settled = settle(alone[name].flow)
        answered = alone[name].choices + _along(world, values, flow, settled).choices
        for how, slope in (("held", alone[name].choices), ("equilibrium", answered)):
            yield from _on_choices(world, name, how, slope, level.choices, value)
        for how, change in (("held", alone[name].flow), ("equilibrium", settled)):
            for label, share in zip(world.states, world.shares(change), strict=True):
                yield (name, FLOW[how], label), share
    yield from _of_points(world, values, flow, settle)


def _of_points(world: _World, values: Array, flow: Array, settle: Any) -> Any:
    """Yield what one point more of the crowd in a state does there."""
    found = []
    for m, state in enumerate(world.moved):
        direction = towards(flow, state, within=world.within, n_states=world.game.shape[1])
        moved = _along(world, values, flow, direction)
        one_step, settled = (world.shares(f)[state] for f in (moved.flow, settle(moved.flow)))
        found.append((moved.arrivals[m], one_step, settled))
        for effect, value in zip(OF_CROWD, found[-1], strict=True):
            yield (CROWD, effect, world.states[state]), value
        yield from _of_crowd_on_choices(world, world.states[state], moved.choices)
    for share in world.read:
        moved = _along(world, values, flow, raised(flow, share))
        yield from _of_crowd_on_choices(world, share.words, moved.choices)
    if found:
        weights = world.shares(flow)[world.moved]
        mean = np.average(np.array(found), axis=0, weights=weights)
        for effect, value in zip(OF_CROWD, mean, strict=True):
            yield (CROWD, effect, AVERAGE), value


def _of_crowd_on_choices(world: _World, whose: str, change: Array) -> Any:
    for action, value in zip(text_labels(world.game.actions), change, strict=True):
        yield (CROWD, choice_of(action), whose), value


def _along(world: _World, values: Array, flow: Array, direction: Array) -> _Response:
    """Return how the response changes along a direction of the flow."""
    largest = np.abs(direction).max()
    if not largest > 0:
        nothing = world.answer(world.image(values, flow))
        return nothing.minus(nothing, 1.0)
    if not np.isfinite(largest):
        return _Response(*(np.full_like(part, np.nan) for part in
                           world.answer(world.image(values, flow))))  # fmt: skip
    step = TOWARDS / largest
    ends = [world.answer(world.image(values, flow + s * step * direction)) for s in (1.0, -1.0)]
    return ends[0].minus(ends[1], 2 * step)


def _settling(response_map: AnyResponseMap, image: Image, temperature: float) -> Any:
    """Return the map from what a response changes to what the crowd does once it has settled."""
    try:
        return inverse(response_map, image, temperature, often=True)[0]
    except ConvergenceError:  # where equilibria meet
        return lambda change: np.full_like(change, np.nan)


class _Found(NamedTuple):
    table: pd.DataFrame
    kind: str
    n_draws: int
    n_failed: int
    messages: tuple[str, ...]


def _index_of(rows: Rows) -> pd.MultiIndex:
    return pd.MultiIndex.from_tuples(list(rows), names=["of", "effect", "on"])


def _over_draws(rows: list[Rows], intervals: bool, ci_prob: float) -> _Found:
    """Return mean, standard deviation and equal-tailed interval of each effect."""
    drawn = pd.DataFrame([list(row.values()) for row in rows], columns=_index_of(rows[0]))
    failed = drawn.isna().all(axis=1)
    table = pd.DataFrame({"estimate": drawn.mean()})
    tails = (0.5 * (1 - ci_prob), 0.5 * (1 + ci_prob))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = [drawn.quantile(q) if intervals else np.nan for q in tails]
    table["error"] = drawn.std(ddof=1) if intervals else np.nan
    table["lower"], table["upper"] = bounds
    return _Found(_in_order(table), "equal-tailed", len(rows), int(failed.sum()), ())


def _around_point(
    measure: Any, fit: PointEstimate, sizes: Array, ci_prob: float, *, kind: str, groups: str | None
) -> _Found:
    """Return estimates with standard errors by the delta method."""
    values = fit.params.to_numpy(dtype=float)
    measured = measure(values)
    level = pd.Series(measured.values(), _index_of(measured), dtype=float)
    slope = np.empty((len(level), len(values)))
    for k, size in enumerate(sizes):
        up, down = (np.array(list(measure(v).values())) for v in _moves(values, k, OUTER * size))
        slope[:, k] = (up - down) / (2 * OUTER * size)
    variance, messages = variances_of(fit, slope, "an effect", kind=kind, groups=groups)
    error = pd.Series(np.sqrt(variance), level.index)
    half = float(ndtri(0.5 + ci_prob / 2)) * error
    table = pd.DataFrame(
        {"estimate": level, "error": error, "lower": level - half, "upper": level + half}
    )
    return _Found(_in_order(table), "Wald", 1, 0, messages)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return effects parameter by parameter, in the order of `EFFECTS`."""
    place = {effect: k for k, effect in enumerate(EFFECTS)}
    of = {name: k for k, name in enumerate(dict.fromkeys(table.index.get_level_values("of")))}
    rank = [(of[o] if o != CROWD else len(of), place.get(e, -1)) for o, e, _ in table.index]
    order = sorted(range(len(rank)), key=lambda j: rank[j])
    return table.iloc[order]
