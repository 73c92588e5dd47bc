"""Where actions move nothing, a trajectory model is a multinomial logit: statsmodels agrees."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg

sm = pytest.importorskip("statsmodels.api")

N_AGENTS, N_TIMES = 60, 8
QUALITY = np.array([-1.0, 0.2, 0.7, 1.5])
TRUTH = {"lower": (0.3, -0.8), "raise": (-0.4, 0.6)}  # constant, slope; "hold" is the reference
MATCH = 1e-6  # of two optimisers whose gradients are below 1e-8


def panel_of(seed: int = 3) -> pd.DataFrame:
    """Return choices of agents who differ, so that clustered errors differ from the others."""
    rng = np.random.default_rng(seed)
    state = rng.integers(0, 4, (N_AGENTS, N_TIMES))
    own = rng.normal(0.0, 0.8, (N_AGENTS, 1))
    values = np.zeros((N_AGENTS, N_TIMES, 3))
    for k, name in enumerate(TRUTH, start=1):
        constant, slope = TRUTH[name]
        values[..., k] = constant + own + slope * QUALITY[state]
    drawn = (values + rng.gumbel(size=values.shape)).argmax(-1)
    names = np.array(["hold", *TRUTH])
    agent, time = np.indices(state.shape)
    columns = {"agent": agent, "time": time, "state": state, "action": names[drawn]}
    return pd.DataFrame({k: v.ravel() for k, v in columns.items()})


def logit(x):
    """Return a constant and a slope in quality for each action but the first."""
    total = 0.0
    for name in TRUTH:
        constant, slope = (pyro.sample(f"{k}_{name}", dist.Normal(0.0, 5.0)) for k in "cs")
        total = total + (constant + slope * x.quality) * (x.action == name)
    return total


@pytest.fixture(scope="module")
def fits():
    """Return our fit and that of statsmodels, whose errors are clustered by agent."""
    frame = panel_of()
    panel = mfg.Trajectories.from_frame(frame, action_labels=["hold", *TRUTH])
    game = mfg.MeanFieldGame(
        states=[0, 1, 2, 3], actions=panel.actions, horizon=panel.horizon,
        transition=np.full((4, 3, 4), 0.25), initial=panel.initial_distribution(),
        features={"quality": ("state", QUALITY)},
    )  # fmt: skip
    ours = mfg.mle(mfg.TrajectoryModel(game, logit, panel), svi_steps=0, progressbar=False)
    design = sm.add_constant(QUALITY[frame["state"]])
    codes = pd.Categorical(frame["action"], ["hold", *TRUTH]).codes
    options = {"method": "newton", "maxiter": 100, "tol": 1e-12, "disp": False}
    model = sm.MNLogit(codes, design)
    clusters = {"groups": frame["agent"].to_numpy()}
    return ours, model.fit(**options), model.fit(**options, cov_type="cluster", cov_kwds=clusters)


def order(fit):
    """Return the names of our parameters in the order of statsmodels: by action, constant first."""
    return [f"{k}_{name}" for name in TRUTH for k in "cs"]


def test_log_likelihood_and_coefficients(fits):
    """Of a static panel the log likelihood is the multinomial logit's, and so is its maximum."""
    ours, theirs, _ = fits
    assert ours.llf == pytest.approx(theirs.llf, rel=1e-10)
    np.testing.assert_allclose(
        ours.params[order(ours)], np.asarray(theirs.params).T.ravel(), rtol=MATCH, atol=MATCH
    )


def test_standard_errors(fits):
    """Those of the observed information are the same."""
    ours, theirs, _ = fits
    np.testing.assert_allclose(ours.bse[order(ours)], np.asarray(theirs.bse).T.ravel(), rtol=MATCH)


def test_clustered_standard_errors(fits):
    """They agree once the factor (n - 1) / (n - k), of rows and not of clusters, is taken off."""
    ours, plain, clustered = fits
    n, k = N_AGENTS * N_TIMES, 4
    factor = np.sqrt((n - 1) / (n - k))
    expected = np.asarray(clustered.bse).T.ravel() / factor
    found = ours.standard_errors("cluster")[order(ours)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (expected > 1.2 * np.asarray(plain.bse).T.ravel())[[0, 2]].all()  # agents differ
