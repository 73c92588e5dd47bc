"""Posterior draws along a counted flow, moved and widened by what the jackknife measures."""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import ndtri, stdtrit

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.density.draws import flat_draws, received
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.result_tree import recorded

GROUP = "adjusted_posterior"
TAIL = 0.95  # quantile at which normal draws are as wide as t


@strict_keywords
def adjust(draws: Any, jackknife: PointEstimate, model: TrajectoryModel) -> xr.DataTree:
    """Move and widen posterior draws by the bias and the variance that the counted flow brings.

    The posterior along a counted flow takes the flow as known: it is centred at an estimate that is
    biased, and too narrow. With C the covariance of the draws and V that of the maximum likelihood
    estimate, both over unconstrained parameters, W = C / V is how far the posterior follows the
    estimate, and 1 - W how far the prior holds it. With d the jackknife's correction and V_J the
    corrected estimate's covariance, the draws get the mean m + W d and the covariance
    C + W (V_J - V) W', the difference cut at zero; the map between both is the linear one that
    moves draws least.

    Parameters
    ----------
    draws : DataTree
        A result of `nuts`, `laplace` or `vi` along the panel's own flow.
    jackknife : PointEstimate
        What `mfgppl.jackknife` gives for the same model.
    model : TrajectoryModel
        The model, whose program says what the unconstrained parameters are.

    Returns
    -------
    DataTree
        The result with a further group `adjusted_posterior`, of the same variables and labels as
        `posterior`, which is left as it is.

    Raises
    ------
    ValueError
        If the estimate is no jackknife's, lacks a standard error, or draws, estimate and model are
        not of the same parameters.

    Notes
    -----
    A correction of the first two moments, by an estimate of them: it is good where the posterior is
    about normal and the bias at most a few standard errors. The coupled posterior,
    mean_field="equilibrium", needs neither.

    References
    ----------
    .. [1] Shaby (2014), *The open-faced sandwich adjustment for MCMC using estimating functions*,
       Journal of Computational and Graphical Statistics 23.
    """
    is_a("model", model, TrajectoryModel)
    is_a("jackknife", jackknife, PointEstimate, " mfgppl.jackknife gives one.")
    if jackknife.kind != "jackknife":
        raise ValueError(
            f"`jackknife` must be what mfgppl.jackknife gives; got an estimate of kind "
            f"{jackknife.kind!r}."
        )
    density = density_of(model)
    names = density.program.entry_names()
    if list(jackknife.params.index) != names:
        raise ValueError(
            f"`jackknife` has the parameters {list(jackknife.params.index)}; the model has {names}."
        )
    if jackknife.bse.isna().any():
        unknown = list(jackknife.params.index[jackknife.bse.isna()])
        raise ValueError(f"`jackknife` has no standard error of {', '.join(unknown)}.")
    tree = received(draws, "draws")
    values = flat_draws(density.program, tree, argument="draws")
    free = density.program.free_rows(values.reshape(-1, values.shape[-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit's own messages are known
        fit = mle(model, svi_steps=0, progressbar=False, flow_bias=False)
    moved = _moved(free, fit, jackknife)
    groups = recorded(density, moved)["posterior"]
    group = tree["posterior"].to_dataset()
    for name in groups.keys() & set(group.data_vars):
        group[name] = group[name].copy(data=groups[name].reshape(group[name].shape))
    group.attrs["adjusted_by"] = (
        f"jackknife in {jackknife.dof + 1:.0f} parts: draws moved and widened by the bias and the "
        "variance of the counted flow"
    )
    said = [*tree.attrs.get("warnings", ()), *jackknife.messages]
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=tree.attrs | {"warnings": said}), **_datasets(tree), GROUP: group}
    )


def _moved(free: np.ndarray, fit: PointEstimate, jackknife: PointEstimate) -> np.ndarray:
    """Return unconstrained draws (N, K) with their first two moments corrected."""
    mean, spread = free.mean(0), np.atleast_2d(np.cov(free.T))
    own = fit.curvature.covariance
    follows = spread @ np.linalg.pinv(own, hermitian=True)
    wider = (stdtrit(jackknife.dof, TAIL) / ndtri(TAIL)) ** 2
    # of first order at the estimate: the map to the unconstrained ones bends away from a ridge
    back = np.linalg.pinv(fit.jacobian)
    corrected = back @ jackknife.cov_params().to_numpy(copy=True) @ back.T
    more = _cut(wider * corrected - own)
    target = spread + follows @ more @ follows.T
    root = _root(spread)
    inverse = np.linalg.pinv(root, hermitian=True)
    least = inverse @ _root(root @ target @ root) @ inverse
    shift = back @ (jackknife.params - fit.params).to_numpy()
    return np.asarray(mean + follows @ shift + (free - mean) @ least.T)


def _datasets(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    return {name: child.to_dataset() for name, child in tree.children.items()}


def _cut(matrix: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix without its negative part."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T)


def _root(matrix: np.ndarray) -> np.ndarray:
    """Return the symmetric root of a matrix that is not negative."""
    eigenvalues, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T)
