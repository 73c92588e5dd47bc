"""Nested pseudo-likelihood: refit, let the fitted policy generate the flow, repeat."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.response import generate_mean_field
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning
from mfgppl.inference.compiled import density_of
from mfgppl.inference.cross_fit import along
from mfgppl.inference.curvature import analyse_curvature
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.point import Objective, maximum, mle
from mfgppl.inference.products import log_likelihood, policy
from mfgppl.likelihood.model import TrajectoryModel

STEP = 1e-3  # of central differences, in standard errors
RETURNS = 0.1  # of the last change of the flow: nearer to the flow two steps back it is a cycle
GROWTH = 4  # steps in a row in which the change of the flow grows


@dataclass(frozen=True, eq=False, repr=False)
class NestedPseudoLikelihood:
    """Where refits and the flows that they generate lead.

    Attributes
    ----------
    estimate : PointEstimate
        The maximum along the last flow. Once converged, its standard errors of all kinds count how
        the flow moves with the parameters, as its information and scores are those of the fixed
        point; before, they take the flow as known.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The last flow along which the reward was fitted.
    path : DataFrame
        A row a step: `change`, the largest difference of a share between the flow and the one that
        the fitted policy generates; `llf`, nats; and the parameters.
    converged : bool
        Whether the last change is within tolerance: flow and policy are an entropy-regularised
        equilibrium of the fitted game.
    residual : float
        The last change.
    reason : str
        How it ended: a fixed point, a cycle, a flow that runs away, or too few steps.
    """

    estimate: PointEstimate
    mean_field: Tensor
    path: pd.DataFrame
    converged: bool
    residual: float
    reason: str

    @property
    def params(self) -> pd.Series:
        """The estimate's parameters."""
        return self.estimate.params

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT converged"
        flow = "moves with the parameters" if self.converged else "is taken as known"
        estimate = self.estimate
        lines = [
            f"nested pseudo-likelihood: {state} in {len(self.path)} steps ({self.reason}), "
            f"log likelihood {estimate.llf:.3f}, {estimate.nobs} decisions of "
            f"{estimate.n_trajectories} trajectories",
            estimate.summary().to_string(float_format=lambda v: f"{v:.4g}"),
            f"std_err: the flow {flow}; 90% Wald intervals",
        ]
        return "\n".join(lines)


@strict_keywords
def nested_pseudo_likelihood(
    model: TrajectoryModel,
    *,
    mean_field: Any = None,
    damping: float = 1.0,
    tolerance: float = 1e-8,
    max_steps: int = 50,
    init: Mapping[str, Any] | PointEstimate | None = None,
    random_seed: int = 0,
) -> NestedPseudoLikelihood:
    """Fit the reward and the flow that it generates to each other by iteration.

    The reward is fitted along a flow by maximum likelihood; the fitted policy generates the next
    flow, from the game's initial distribution and by its dynamics; and so on. A fixed point is an
    equilibrium of the fitted game, and its flow no longer depends on the choices seen but through
    the parameters. Panels of a few dozen parameters' worth of choices then estimate what the whole
    flow is, where the plug-in takes each share from the sample.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        The first flow; by default the model's. Where several equilibria fit, it decides.
    damping : float in (0, 1]
        Share of the generated flow in the next; below 1 it calms a cycle.
    tolerance : float
        Largest change of a share that counts as none.
    max_steps : int
        Refits at most.
    init : mapping of str to value, or PointEstimate, optional
        Where the first fit starts, as in `mle`.
    random_seed : int
        Seed of the first fit, as in `mle`.

    Returns
    -------
    NestedPseudoLikelihood
        The estimate, the flow and the path to it.

    Warns
    -----
    ConvergenceWarning
        If no fixed point is reached; `reason` says how it ended.

    Raises
    ------
    ValueError
        If the likelihood is not causal, or the flow does not fit the game.

    References
    ----------
    .. [1] Aguirregabiria and Mira (2007), *Sequential estimation of dynamic discrete games*,
       Econometrica 75.
    .. [2] Kasahara and Shimotsu (2012), *Sequential estimation of structural models with a fixed
       point constraint*, Econometrica 80: when the iteration converges, and damping.
    """
    is_a("model", model, TrajectoryModel)
    if model.likelihood_name != "causal":
        raise ValueError(
            "nested_pseudo_likelihood needs likelihood='causal', whose policy generates the flow."
        )
    real_between("damping", damping, above=0.0, upto=1.0)
    real_between("tolerance", tolerance, above=0.0)
    positive_int("max_steps", max_steps)
    given = mean_field is not None
    flow = model.game.check_flow("mean_field", mean_field) if given else model.mean_field
    here = along(model, model.panel, flow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps on the way; the last fit says its own
        fit = mle(here, init=init, random_seed=random_seed, progressbar=False)
    flows, rows, reason = [flow], [], ""
    while not reason:
        generated = generate_mean_field(here.game, policy(here, fit))
        change = float((generated - flow).abs().max())
        rows.append({"change": change, "llf": float(log_likelihood_at(here, fit)), **fit.params})
        reason = _ending(flows, [r["change"] for r in rows], tolerance, max_steps)
        if reason:
            break
        flow = (1 - damping) * flow + damping * generated
        flows = [*flows[-2:], flow]
        here = along(model, model.panel, flow)
        found = maximum(here, fit)
        if found is None:
            reason = "no maximum was found along the last flow"
        else:
            fit = replace(fit, params=pd.Series(found, fit.params.index, name="estimate"))
    converged = rows[-1]["change"] <= tolerance and found_all(reason)
    estimate = mle(here, init=fit, svi_steps=0, progressbar=False)
    if converged:
        estimate = _with_moving_flow(here, estimate)
    else:
        warnings.warn(f"no fixed point was reached: {reason}", ConvergenceWarning, stacklevel=3)
    path = pd.DataFrame(rows).rename_axis("step")
    return NestedPseudoLikelihood(estimate, flow, path, converged, rows[-1]["change"], reason)
