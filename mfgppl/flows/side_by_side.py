"""All treatments of the crowd's flow side by side, and which one a panel supports."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl._replication import or_reason, seeds_of
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.fixed_point import settled
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.group_jackknife import jackknife
from mfgppl.estimation.parts import random_parts
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.exceptions import ConvergenceError
from mfgppl.flows.coupling import CouplingTest, coupling_test
from mfgppl.flows.cross_fitting import cross_fit
from mfgppl.flows.efficient import efficient_pseudo_likelihood
from mfgppl.flows.pseudo_likelihood import nested_pseudo_likelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.panels import flow_of
from mfgppl.likelihood.replay import draw_again
from mfgppl.likelihood.requirements import needs_causal

FAR = 0.05  # p of the distance from equilibrium below which a crowd counts as being in none
PLUG_IN, JACKKNIFE, CROSS_FIT, COUPLED = "plug-in", "jackknife", "cross-fit", "coupled"
ASSUMES = {
    PLUG_IN: "the flow counted is the flow that agents expect",
    JACKKNIFE: "agents, or clusters, are independent; nothing of how the flow came about",
    CROSS_FIT: "agents of different parts are independent; the rest's flow is that expected",
    "nested": "the flow is the equilibrium of the fitted game",
    COUPLED: "the flow is the equilibrium of the fitted game, and is used fully",
}


@dataclass(frozen=True, eq=False, repr=False)
class Treatments:
    """Fits of one model under several treatments of its crowd's flow.

    Attributes
    ----------
    fits : dict of str to PointEstimate
        By treatment: "plug-in", "jackknife", "cross-fit", "coupled", and "nested" on request; of
        those that have an estimate.
    table : DataFrame
        One row per treatment and parameter: `estimate`, `std_err`, `lower` and `upper` of the
        nominal 90 % interval, and `away`, the distance from the plug-in in its standard errors.
    failures : dict of str to str
        Why a treatment has no estimate.
    counted_flow : CountedFlow or None
        What counting the flow costs the plug-in.
    p_equilibrium : float
        Share of panels drawn from the equilibrium at the coupled estimate whose flow is at least
        as far from it as the flow observed; NaN where that is not solved for.
    coupling : CouplingTest or None
        The test of the crowd's terms, where a model without them was given.
    recommended : str
        The treatment that the panel supports.
    """

    fits: dict[str, PointEstimate]
    table: pd.DataFrame
    failures: dict[str, str]
    counted_flow: CountedFlow | None
    p_equilibrium: float
    coupling: CouplingTest | None
    recommended: str

    @property
    def verdict(self) -> str:
        """Which treatment the panel supports, and why."""
        cost = self.counted_flow
        if self.recommended == PLUG_IN:
            why = "no term reads a counted flow" if cost is None else str(cost)
            return f"the plug-in fit is good enough: {why}"
        if self.recommended == COUPLED:
            return (
                "use the coupled likelihood: the crowd is as near to an equilibrium of the fitted "
                f"game as panels drawn from it (p = {self.p_equilibrium:.2g}), and counting the "
                f"flow puts {self._biased()} off"
            )
        return (
            f"use the {self.recommended}: counting the flow puts {self._biased()} off, and "
            f"{self._no_equilibrium()}"
        )

    def __repr__(self) -> str:
        shown = pd.concat(
            {
                name: pd.concat({"estimate": fit.params, "std_err": fit.bse}, axis=1).stack()  # noqa: PD013
                for name, fit in self.fits.items()
            },
            axis=1,
        ).T
        lines = [shown.to_string(float_format=lambda v: f"{v:.3g}")]
        lines += [f"{name}: assumes that {ASSUMES[name]}" for name in self.fits]
        lines += [f"{name}: no estimate, {reason}" for name, reason in self.failures.items()]
        if self.coupling is not None:
            lines.append(self.coupling.verdict)
        return "\n".join([*lines, self.verdict])

    def _biased(self) -> str:
        cost = self.counted_flow
        names = [] if cost is None else cost.untrusted
        return ", ".join(names) if names else "the estimates"

    def _no_equilibrium(self) -> str:
        if COUPLED not in self.fits:
            return f"the coupled likelihood has no estimate ({self.failures[COUPLED]})"
        if np.isnan(self.p_equilibrium):
            return "how near the crowd is to the equilibrium of the fitted game is not judged"
        return (
            "the crowd is farther from the equilibrium of the fitted game than panels drawn from "
            f"it (p = {self.p_equilibrium:.2g})"
        )


@strict_keywords
def treatments(
    model: TrajectoryModel,
    *,
    null: TrajectoryModel | None = None,
    parts: int = 20,
    folds: int = 10,
    by: str | None = None,
    nested: bool = False,
    replications: int = 99,
    random_seed: Seed = 0,
) -> Treatments:
    """Fit a model under each treatment of its crowd's flow, and say which one the panel supports.

    Where counting the flow costs little, that is the plug-in. Otherwise it is the coupled
    likelihood if the crowd is as near to an equilibrium of the fitted game as panels drawn from
    that equilibrium, and the jackknife if not, which assumes nothing of how the flow came about. Of
    agents whose kinds are not seen the coupled fit is shown, and how near the crowd is not judged.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood, along the panel's own flow.
    null : TrajectoryModel, optional
        The model without the crowd's terms, for a `coupling_test` beside the fits.
    parts, folds : int
        Of `jackknife` and of `cross_fit`.
    by : str, optional
        One of the panel's `groups`, whose members share shocks and stay together in both.
    nested : bool
        Whether to fit by `nested_pseudo_likelihood` as well.
    replications : int
        Panels drawn from the equilibrium, and of the coupling test.
    random_seed : int or SeedSequence
        Seed of parts, folds and panels.

    Returns
    -------
    Treatments
        The fits, a table, and a verdict in words.

    Raises
    ------
    ValueError
        If the likelihood is not causal, the flow is not the panel's own, or the panel is counted.
    """
    is_a("model", model, TrajectoryModel)
    needs_causal(model, "treatments")
    if not model.flow_is_empirical:
        raise ValueError(
            f"treatments compares ways to take the panel's own flow; the model's is "
            f"{model.flow_kind}. Build it with mean_field='empirical'."
        )
    panel = with_rows(model.panel, "treatments")
    positive_int("replications", replications)
    seed = seed_of(random_seed)
    cluster = "agent" if by is None else by
    random_parts(panel, cluster, parts, seed, what="treatments", argument="parts")
    random_parts(panel, cluster, folds, seed, what="treatments", argument="folds")
    if null is not None:
        is_a("null", null, TrajectoryModel)

    def sequence() -> PointEstimate:
        if model.nodes is not None:  # whose sequence would have to hold the kinds as well
            together = model.along("equilibrium")
            return mle(together, init=plug_in, flow_bias=False, progressbar=False)
        found = efficient_pseudo_likelihood(model, init=plug_in)
        return _fixed_point(found.estimate, found.converged, found.reason)

    def nest() -> PointEstimate:
        found = nested_pseudo_likelihood(model, init=plug_in)
        return _fixed_point(found.estimate, found.converged, found.reason)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the record says what is wrong with a treatment
        plug_in = mle(model, svi_steps=0, progressbar=False)
        makers: dict[str, Callable[[], PointEstimate]] = {
            JACKKNIFE: lambda: jackknife(model, parts=parts, by=by, random_seed=seed, init=plug_in),
            CROSS_FIT: lambda: cross_fit(
                model, by=cluster, folds=folds, random_seed=seed, init=plug_in, progressbar=False
            ),
            COUPLED: sequence,
        } | ({"nested": nest} if nested else {})
        found = {name: or_reason(make) for name, make in makers.items()}
    fits = {PLUG_IN: plug_in}
    fits |= {name: fit for name, fit in found.items() if isinstance(fit, PointEstimate)}
    failures = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    p = _p_of_equilibrium(model, panel, fits.get(COUPLED), replications, seed)
    test = None
    if null is not None:
        test = coupling_test(
            model, null, replications=replications, random_seed=seed, progressbar=False
        )
    cost = plug_in.counted_flow
    costly = cost is not None and bool(cost.messages())
    near = COUPLED in fits and not p < FAR and model.nodes is None
    blind = cost is not None and bool(cost.saturated)
    wanted = [PLUG_IN] if not costly else [COUPLED] if near else [CROSS_FIT] if blind else []
    wanted += [JACKKNIFE, COUPLED, PLUG_IN]
    recommended = next(name for name in wanted if name in fits)
    return Treatments(fits, _table(fits), failures, cost, p, test, recommended)


def _fixed_point(estimate: PointEstimate, converged: bool, reason: str) -> PointEstimate:
    if not converged:
        raise ConvergenceError(reason)
    return estimate


def _table(fits: dict[str, PointEstimate]) -> pd.DataFrame:
    base = fits[PLUG_IN]
    rows = {}
    for name, fit in fits.items():
        interval = fit.conf_int(0.9)
        rows[name] = pd.DataFrame(
            {
                "estimate": fit.params,
                "std_err": fit.bse,
                "lower": interval["lower"],
                "upper": interval["upper"],
                "away": (fit.params - base.params) / base.bse,
            }
        )
    return pd.concat(rows, names=["treatment", "parameter"])


def _p_of_equilibrium(
    model: TrajectoryModel,
    panel: Trajectories,
    fit: PointEstimate | None,
    replications: int,
    seed: int,
) -> float:
    """Return how often a panel drawn from the equilibrium at a fit is as far from it as this one.

    The distance is `sum (share seen - share)^2 / share` over states and times. The fit is of the
    same panel, which makes p too large, if anything.
    """
    if fit is None or model.game.stationary or model.nodes is not None:
        return float("nan")
    sites = density_of(model).program.by_site(fit.params.to_numpy(copy=True))
    solution = settled(model.game, model.reward, sites, start=model.mean_field)
    if not solution.converged:
        return float("nan")
    flow = solution.mean_field
    known, share = model.along(flow), flow.numpy()

    def distance(seen: Trajectories) -> float:
        gap = flow_of(seen, model.game) - share
        return float((gap**2 / np.maximum(share, 1 / panel.n_agents)).sum())

    policy = solution.policy

    def redrawn_distance(stream: int) -> float:
        begun = _started_anew(known, panel, stream)
        return distance(draw_again(known.game, begun, policy, flow, stream))

    streams = seeds_of(seed, replications)
    drawn = [or_reason(functools.partial(redrawn_distance, stream)) for stream in streams]
    sound = np.array([d for d in drawn if not isinstance(d, str)])
    if not len(sound):
        return float("nan")
    own = distance(panel)
    return float((1 + (sound >= own).sum()) / (1 + len(sound)))


def _started_anew(model: TrajectoryModel, panel: Trajectories, stream: int) -> Trajectories:
    """Return a panel whose agents that are there at first begin where the game says."""
    first = panel.offsets[:-1][panel.time[panel.offsets[:-1]] == 0]
    state, initial = panel.state.copy(), model.game.initial.numpy()
    rng = np.random.default_rng([stream, 1])
    state[first] = rng.choice(len(initial), size=len(first), p=initial / initial.sum())
    return replace(panel, state=state)
