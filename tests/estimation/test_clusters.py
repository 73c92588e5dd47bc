"""Clustered errors of a panel in which nothing is foreseen: a logit's, by statsmodels and NumPy."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats

import mfgppl as mfg

FAST = {"svi_steps": 0, "progressbar": False}


def static_panel(n_villages: int, seed: int = 1) -> pd.DataFrame:
    """Return households that answer once, in villages that share a shock."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 40, size=n_villages)
    village = np.repeat(np.arange(n_villages), sizes)
    land = rng.integers(0, 4, size=len(village))
    shock = rng.normal(0.0, 0.7, size=n_villages)[village]
    accepts = rng.random(len(village)) < 1 / (1 + np.exp(-(-0.5 + 0.4 * land + shock)))
    return pd.DataFrame(
        {
            "household": np.arange(len(village)),
            "year": 0,
            "land": land,
            "answer": np.where(accepts, "yes", "no"),
            "village": village,
        }
    )


def logit(frame: pd.DataFrame) -> mfg.TrajectoryModel:
    """Return the logit of the answer on land."""
    panel = mfg.Trajectories.from_frame(
        frame, agent="household", time="year", state="land", action="answer", groups=["village"]
    )
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=1,
        transition=np.broadcast_to(np.eye(4)[:, None], (4, 2, 4)),
        initial=panel.initial_distribution(),
    )  # fmt: skip

    def reward(x):
        a, b = (pyro.sample(name, dist.Normal(0.0, 5.0)) for name in ("const", "land"))
        return (a + b * x.land) * (x.action == "yes")

    return mfg.TrajectoryModel(game, reward, panel)


def fitted(frame: pd.DataFrame) -> mfg.results.PointEstimate:
    """Return its fit."""
    return mfg.mle(logit(frame), **FAST)


def sandwich(frame: pd.DataFrame, at: np.ndarray) -> np.ndarray:
    """Return the covariance of a logit, scores added up in villages, times G / (G - 1)."""
    inputs = np.column_stack([np.ones(len(frame)), frame["land"]])
    chance = 1 / (1 + np.exp(-inputs @ at))
    bread = np.linalg.inv((inputs * (chance * (1 - chance))[:, None]).T @ inputs)
    scores = inputs * ((frame["answer"] == "yes") - chance).to_numpy()[:, None]
    summed = pd.DataFrame(scores).groupby(frame["village"].to_numpy()).sum().to_numpy()
    n = len(summed)
    return n / (n - 1) * bread @ summed.T @ summed @ bread


@pytest.mark.parametrize("n_villages", [6, 40])
def test_clustered_errors_are_those_of_the_formula(n_villages):
    """The sandwich by hand, t with one degree less than there are villages, for p and intervals."""
    frame = static_panel(n_villages)
    fit = fitted(frame)
    at = fit.params[["const", "land"]].to_numpy()
    errors = np.sqrt(np.diag(sandwich(frame, at)))
    table = fit.summary(kind="cluster", groups="village")
    np.testing.assert_allclose(table["std_err"], errors, rtol=1e-6)
    law = scipy.stats.t(n_villages - 1)
    np.testing.assert_allclose(table["p"], 2 * law.sf(np.abs(at / errors)), rtol=1e-6)
    np.testing.assert_allclose(table["upper 90%"], at + law.ppf(0.95) * errors, rtol=1e-6)
    delta = mfg.hypotheses.delta_method(fit, lambda p: p["land"], kind="cluster", groups="village")
    assert delta.upper.iloc[0] == pytest.approx(table.loc["land", "upper 90%"], rel=1e-6)
    assert fit.degrees("cluster", groups="village") == n_villages - 1
    assert np.isinf(fit.degrees())


def test_clustered_errors_are_those_of_statsmodels():
    """Estimates, errors, p and intervals; its errors have a further factor (N - 1) / (N - K)."""
    sm = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    frame = static_panel(8)
    fit, n = fitted(frame), len(frame)
    inputs = sm.add_constant(frame["land"].astype(float))
    peer = sm.Logit((frame["answer"] == "yes").astype(float), inputs).fit(
        disp=False, cov_type="cluster", cov_kwds={"groups": frame["village"]}, use_t=True
    )
    factor = np.sqrt((n - 1) / (n - 2))
    table = fit.summary(kind="cluster", groups="village")
    np.testing.assert_allclose(table["estimate"], peer.params, rtol=1e-5)
    np.testing.assert_allclose(factor * table["std_err"], peer.bse, rtol=1e-5)
    upper = peer.conf_int(0.1)[1] - peer.params
    np.testing.assert_allclose(factor * (table["upper 90%"] - table["estimate"]), upper, rtol=1e-5)


def test_few_clusters_are_noted():
    """Below thirty the table says so, and names what leaves out one cluster at a time."""
    few, many = (fitted(static_panel(n)) for n in (6, 40))
    table = mfg.compare_fits({"few": few}, kind="cluster", groups="village")
    (note,) = (n for n in table.notes if "fewer than 30" in n)
    assert note.startswith("6 clusters")
    assert "t with 5 degrees" in note
    assert table.cells.loc["clusters", "few"] == "6"
    notes = mfg.compare_fits({"many": many}, kind="cluster", groups="village").notes
    assert not any("fewer than 30" in n for n in notes)


def score_parts(frame: pd.DataFrame) -> np.ndarray:
    """Return what each village adds to the score step of land where its coefficient is zero."""
    yes = (frame["answer"] == "yes").to_numpy()
    chance = yes.mean()
    inputs = np.column_stack([np.ones(len(frame)), frame["land"]])
    bread = np.linalg.inv(chance * (1 - chance) * inputs.T @ inputs)
    scores = inputs * (yes - chance)[:, None]
    summed = pd.DataFrame(scores).groupby(frame["village"].to_numpy()).sum().to_numpy()
    return (summed @ bread)[:, 1]


def test_the_wild_score_bootstrap_is_that_of_the_formula():
    """All sign patterns of six villages, enumerated, give the p of ten thousand draws."""
    frame = static_panel(6)
    frame["answer"] = np.random.default_rng(3).permutation(frame["answer"])
    test = mfg.hypotheses.score_test(
        logit(frame), {"land": 0.0}, kind="cluster", groups="village", replications=9999
    )
    parts = score_parts(frame)
    sizes = np.sqrt([0.5, 1.0, 1.5])
    points = np.concatenate([-sizes, sizes])
    weights = np.array(np.meshgrid(*[points] * 6)).reshape(6, -1).T
    drawn = (weights @ parts) ** 2 / (weights**2 @ parts**2)
    seen = parts.sum() ** 2 / (parts**2).sum()
    exact = float((drawn >= seen * (1 - 1e-9)).mean())
    assert test.statistic == pytest.approx(seen * 5 / 6, rel=1e-6)
    assert test.p == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 9999))
    assert "wild score bootstrap, 9999 replications, 6 clusters" in repr(test)
    with pytest.raises(ValueError, match="`replications` belong to kind='cluster'"):
        mfg.hypotheses.score_test(logit(frame), {"land": 0.0}, replications=99)


@pytest.mark.slow
def test_tests_of_few_clusters_hold_their_level():
    """Of 300 panels of 12 villages without an effect, 5% are refused, by t fewer than by normal."""
    refused = {"normal": 0, "t": 0, "wild": 0}
    n = 300
    for seed in range(n):
        frame = static_panel(12, seed=1000 + seed)
        by_village = np.random.default_rng(seed).integers(0, 4, size=12)
        frame["land"] = by_village[frame["village"]]  # a regressor that villages share
        rng = np.random.default_rng(5000 + seed)
        shock = rng.normal(0.0, 0.7, size=12)[frame["village"]]
        accepts = rng.random(len(frame)) < 1 / (1 + np.exp(0.5 - shock))
        frame["answer"] = np.where(accepts, "yes", "no")
        if len(set(by_village)) < 4:
            n -= 1
            continue
        model = logit(frame)
        row = mfg.mle(model, **FAST).summary(kind="cluster", groups="village").loc["land"]
        refused["normal"] += 2 * scipy.stats.norm.sf(abs(row["z"])) < 0.05
        refused["t"] += row["p"] < 0.05
        wild = mfg.hypotheses.score_test(
            model, {"land": 0.0}, kind="cluster", groups="village", replications=199
        )
        refused["wild"] += wild.p < 0.05
    error = np.sqrt(0.05 * 0.95 / n)
    assert refused["wild"] / n < 0.05 + 3 * error
    assert refused["wild"] < refused["t"] < refused["normal"]
