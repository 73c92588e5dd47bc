"""How many kinds there are: fits of one, two, three kinds side by side."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import Seed, check_function, is_a, positive_int, seed_of, strict_keywords
from mfgppl._replication import or_reason, replicate, seeds_of
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of, of_panel, redrawn
from mfgppl.density.over_draws import log_likelihoods, panel_at
from mfgppl.estimation.parts import random_parts
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import REACHED, PointEstimate
from mfgppl.likelihood.model import TrajectoryModel

ModelOf = Callable[[int], TrajectoryModel]
CLEAR = 2.0  # standard errors by which held-out agents must be explained better
LEAST = 1.0  # nats by which they must be: twins gain next to nothing, and that surely
SMALL = 0.02  # share of agents below which a kind is hardly one


@dataclass(frozen=True, eq=False, repr=False)
class NumberOfKinds:
    """Fits of one to several kinds side by side.

    Attributes
    ----------
    table : DataFrame
        One row per number of kinds: `llf`, `n_params` (directions that the data know), `bic` by
        the number of agents, `held_out` (log likelihood of agents left out of the fit, nats an
        agent), `gain` and `gain_se` (what each more kind adds to it, and the standard error),
        `smallest` (the smallest expected share of agents), `entropy` (of who is who, 0 where all
        are certain, 1 where nothing is known), `reached` (share of starts that led to the best
        maximum), and, if asked for, `p_bootstrap` (of the likelihood ratio against one kind fewer).
    fits : dict of int to PointEstimate
        The fits.
    """

    table: pd.DataFrame
    fits: dict[int, PointEstimate]

    @property
    def by_bic(self) -> int:
        """The number of kinds whose BIC is least."""
        return int(np.arange(1, len(self.table) + 1)[self.table["bic"].argmin()])

    @property
    def by_held_out(self) -> int:
        """The number after which one more kind explains held-out agents no better.

        Better is by more than two standard errors, and by more than a nat in all.
        """
        best = int(self.table.index[0])
        for k in self.table.index[1:]:
            gain, error = self.table.loc[k, ["gain", "gain_se"]]
            if not gain > max(CLEAR * error, LEAST):
                break
            best = int(k)
        return best

    @property
    def verdict(self) -> str:
        """What the table says, in words."""
        bic, held = self.by_bic, self.by_held_out
        most = int(self.table.index[-1])
        words = f"held-out agents are explained best by {_kinds(held)}"
        if held == most and most > 1:
            words += ", the most that were tried"
        words += "; BIC agrees" if bic == held else f"; BIC says {bic}"
        row = self.table.loc[held]
        if row["reached"] < 0.5 and held > 1:
            words += (
                f". Only {100 * row['reached']:.0f}% of the starts reach the maximum of "
                f"{_kinds(held)}: take more restarts"
            )
        if row["smallest"] < SMALL:
            words += f". The smallest kind is of {100 * row['smallest']:.1f}% of the agents"
        return words + "."

    def __repr__(self) -> str:
        shown = self.table.to_string(float_format=lambda v: f"{v:.4g}")
        return f"{shown}\n{self.verdict}"


@strict_keywords
def choose(
    model_of: ModelOf,
    *,
    up_to: int = 4,
    restarts: int = 8,
    folds: int = 5,
    bootstrap: int = 0,
    random_seed: Seed = None,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> NumberOfKinds:
    """Fit one, two, ... kinds to a panel and say how many it supports.

    Parameters
    ----------
    model_of : callable
        Takes a number of kinds, 1 included, and returns the model of the panel with so many.
    up_to : int
        Largest number of kinds.
    restarts : int
        Starts of each fit beside the first.
    folds : int
        Parts of the agents, each of which is left out of a fit that then explains it. The fits
        without a part begin at the whole fit.
    bootstrap : int
        Panels drawn from each fit with one kind fewer, to which both are fitted; 0 for none.
    random_seed : int or SeedSequence, optional
        Seed of starts, parts and panels.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    NumberOfKinds
        A table, the fits, and a verdict.

    Notes
    -----
    Likelihood ratios for the number of kinds are not chi-squared: under one kind fewer a share is
    at the edge of its support. Held-out agents need no such law: `gain` adds up over agents, whose
    differences give its error. The bootstrap draws panels along the model's flow by the fit with
    one kind fewer [1]_.

    References
    ----------
    .. [1] McLachlan (1987), *On bootstrapping the likelihood ratio test statistic for the number of
       components in a normal mixture*, JRSS C 36.
    """
    positive_int("up_to", up_to)
    positive_int("restarts", restarts, least=0)
    positive_int("folds", folds, least=2)
    positive_int("bootstrap", bootstrap, least=0)
    seed = seed_of(random_seed)
    of_fit, of_parts, of_panels = seeds_of(seed, 3)
    options: dict[str, Any] = {"n_jobs": n_jobs, "progressbar": progressbar}
    rows, fits = {}, {}
    before: tuple[TrajectoryModel, PointEstimate, np.ndarray] | None = None
    for k in range(1, up_to + 1):
        model = _model(model_of, k)
        fit = _fitted(model, restarts if k > 1 else 0, of_fit, n_jobs)
        held = _held_out(model, fit, folds, of_parts)
        row = _row(fit, held)
        if before is not None:
            difference = held - before[2]
            row["gain"] = float(difference.sum())
            row["gain_se"] = float(np.sqrt(len(held)) * difference.std(ddof=1))
            if bootstrap:
                ratio = 2 * (fit.llf - before[1].llf)
                row["p_bootstrap"] = _p_of_ratio(
                    model, fit, before[0], before[1], ratio, bootstrap, of_panels, options
                )
        rows[k], fits[k], before = row, fit, (model, fit, held)
    columns = [
        "llf", "n_params", "bic", "held_out", "gain", "gain_se", "smallest", "entropy", "reached",
        *(["p_bootstrap"] if bootstrap else []),
    ]  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    return NumberOfKinds(table.rename_axis("kinds"), fits)


def _kinds(n: int) -> str:
    return f"{n} kind{'s' * (n > 1)}"


def _model(model_of: ModelOf, k: int) -> TrajectoryModel:
    """Return the model of k kinds, else raise."""
    check_function(
        "model_of", model_of, "be a function of the number of kinds that returns a model"
    )
    model = is_a(f"model_of({k})", model_of(k), TrajectoryModel)
    with_rows(model.panel, "choose")
    return model


def _fitted(model: TrajectoryModel, restarts: int, seed: int, n_jobs: int | None) -> PointEstimate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mle(
            model, restarts=restarts, random_seed=seed, n_jobs=n_jobs, progressbar=False,
            flow_bias=False,
        )  # fmt: skip


def _row(fit: PointEstimate, held: np.ndarray) -> dict[str, float]:
    known = len(fit.theta) - len(fit.curvature.flat)
    row = {
        "llf": fit.llf,
        "n_params": known,
        "bic": known * np.log(len(held)) - 2 * fit.llf,
        "held_out": float(held.mean()),
        "smallest": 1.0,
        "entropy": 0.0,
        "reached": float(np.mean(max(fit.attained) - np.array(fit.attained) < REACHED)),
    }
    if fit.kinds is not None and fit.kinds.shape[1] > 1:
        shares = fit.kinds.to_numpy()
        terms = np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300)), 0.0)
        row["smallest"] = float(shares.mean(0).min())
        row["entropy"] = float(-terms.sum() / (len(shares) * np.log(shares.shape[1])))
    return row


def _held_out(model: TrajectoryModel, fit: PointEstimate, folds: int, seed: int) -> np.ndarray:
    """Return the log likelihood of each agent (n_agents,) under a fit of other agents."""
    panel = model.panel
    assert isinstance(panel, Trajectories)
    # agents who are left out face the same crowd
    along = of_panel(model, panel, model.mean_field)
    scores = np.zeros(panel.n_owners)
    parts = random_parts(panel, "agent", folds, seed, what="choose", argument="folds")
    for part in parts:
        rest = np.setdiff1d(np.arange(panel.n_trajectories), part)
        here = redrawn(along, panel.subset(rest))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            left = mle(here, init=fit, svi_steps=0, progressbar=False, flow_bias=False)
        own = panel.subset(part)
        values = left.params.to_numpy(copy=True)[None]
        logs = log_likelihoods(density_of(here), values, own)[0]
        owner = own.owner if here.nodes is None else np.arange(own.n_owners)
        np.add.at(scores, panel.owner[part][own.first_of_owner][owner], logs)
    return scores


def _p_of_ratio(
    model: TrajectoryModel,
    fit: PointEstimate,
    fewer: TrajectoryModel,
    null: PointEstimate,
    ratio: float,
    replications: int,
    seed: int,
    options: dict[str, Any],
) -> float:
    """Return the chance of a larger likelihood ratio in panels of one kind fewer."""
    flow = fewer.mean_field
    both = [of_panel(of, of.panel, flow) for of in (fewer, model)]

    def drawn(stream: int) -> float:
        panel = panel_at(density_of(fewer), null.params.to_numpy(copy=True), random_seed=stream)
        here, there = (redrawn(along, panel) for along in both)
        found = or_reason(
            lambda: 2 * (_fitted(there, 2, stream, None).llf - _fitted(here, 0, stream, None).llf)
        )
        return np.nan if isinstance(found, str) else found

    ratios = np.array(replicate(drawn, replications, random_seed=seed, **options))
    ratios = ratios[np.isfinite(ratios)]
    return float((1 + (ratios >= ratio).sum()) / (1 + len(ratios)))
