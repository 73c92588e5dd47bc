"""What studies that go step by step share: a fit, and what it says of the crowd."""

import warnings
from typing import Any

import numpy as np

import mfgppl as mfg


def fit(model: mfg.TrajectoryModel, init: Any = None) -> Any:
    """Return the maximum likelihood estimate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constants of all bins are not identified: a column
        return mfg.mle(model, init=init, svi_steps=0, flow_bias=False, progressbar=False)


def gain(more: Any, fewer: Any) -> tuple[float, float]:
    """Return what a model's scores have beyond those of another, in total, and its error."""
    each = np.asarray(more) - np.asarray(fewer)
    return float(each.sum()), float(np.sqrt(each.size * each.var(ddof=1)))


def crowd_of(point: Any, groups: str | None = None) -> tuple[float, float]:
    """Return the crowd's coefficient, mean over kinds by share, and its clustered error."""
    names = [name for name in point.params.index if name.startswith("crowd")]
    weights = np.ones(1) if point.kinds is None else point.kinds.mean().to_numpy()[: len(names)]
    weights = weights / weights.sum()  # kinds beyond have no sense of the crowd
    covariance = point.cov_params("cluster", groups=groups).loc[names, names].to_numpy()
    return float(weights @ point.params[names]), float(np.sqrt(weights @ covariance @ weights))
