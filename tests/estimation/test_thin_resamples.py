"""Resamples in which something cannot be estimated are counted, and the others kept."""

import functools
import warnings

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl._replication import seeds_of
from mfgppl.estimation.bootstrap import resample

FIT = functools.partial(mfg.mle, svi_steps=0, progressbar=False)


@functools.cache
def thin():
    """A model of twelve agents of whom one alone is seen at the last time."""
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        for t in range(4 if i == 0 else 3):
            rows.append((i, t, "lh"[rng.integers(2)], "ab"[rng.integers(2)]))
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame, state_labels={"state": ["l", "h"]})
    game = mfg.MeanFieldGame(
        states=["l", "h"], actions=["a", "b"], horizon=4, initial=[0.5, 0.5],
        transition=np.full((2, 2, 2), 0.5),
    )  # fmt: skip
    reward = mfg.linear_reward({"w": lambda x: x.action == "a"}, dist.Normal(0.0, 1.0))
    return mfg.TrajectoryModel(game, reward, panel)


def test_bootstrap_keeps_a_row_of_nan_for_what_cannot_be_fitted():
    """As many rows are missing as resamples lack the one agent."""
    model = thin()
    panel = model.panel
    drawn = [resample(panel, panel.agents, seed) for seed in seeds_of(1, 10)]
    lacking = np.array([int(one.time.max()) < 3 for one in drawn])
    assert 0 < lacking.sum() < 10
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match=rf"{lacking.sum()} of 10 resamples"):
        found = mfg.bootstrap(model, replications=10, random_seed=1, progressbar=False)
    assert found["w"].isna().tolist() == lacking.tolist()
    assert found.attrs["n_failed"] == lacking.sum()
    kept = int(np.flatnonzero(~lacking)[0])
    share = np.mean(drawn[kept].action == 0)
    assert found["w"][kept] == pytest.approx(np.log(share / (1 - share)), abs=1e-3)


RARE = ["aabb", "aaab", "abbb"]  # what the agents of the rare kind choose


@functools.cache
def rare_kind():
    """A model of 23 agents of whom three alone bear on `r`, and the others alone on `w`."""
    rng = np.random.default_rng(0)
    moves = [*RARE, *("".join(rng.permutation(list("aabb"))) for _ in range(20))]
    rows = [
        (i, t, "lh"[t % 2], move, "rare" if i < len(RARE) else "common", "firm" + str(i // 3))
        for i, taken in enumerate(moves)
        for t, move in enumerate(taken)
    ]
    columns = ["agent", "time", "state", "action", "kind", "firm"]
    panel = mfg.Trajectories.from_frame(
        pd.DataFrame(rows, columns=columns), types=["kind"], groups=["kind", "firm"]
    )
    game = mfg.MeanFieldGame(
        states=["l", "h"], types={"kind": ["rare", "common"]}, actions=["a", "b"], horizon=4,
        initial=np.full(4, 0.25), transition=np.full((2, 2, 2), 0.5),
    )  # fmt: skip
    terms = {
        "w": lambda x: (x.kind == "common") * (x.action == "a"),
        "r": lambda x: (x.kind == "rare") * (x.action == "a"),
    }
    return mfg.TrajectoryModel(game, mfg.linear_reward(terms, dist.Normal(0.0, 1.0)), panel)


def log_odds(panel, kind):
    """The estimate of a kind's coefficient: None without it, infinite where all choose alike."""
    frame = panel.to_frame()
    share = (frame.action[frame.kind.astype(str) == kind].astype(str) == "a").mean()
    with np.errstate(divide="ignore"):
        return None if np.isnan(share) else np.log(share) - np.log1p(-share)


@pytest.mark.parametrize("cluster", ["agent", "kind", "firm"])
def test_bootstrap_has_no_estimate_of_what_a_resample_lacks(cluster):
    """NaN where nobody of the kind is drawn; elsewhere the log odds of those who are."""
    model = rare_kind()
    panel, n = model.panel, 40
    owners = panel.agents if cluster == "agent" else panel.groups[cluster]
    drawn = [resample(panel, owners, seed) for seed in seeds_of(2, n)]
    expected = pd.DataFrame(
        [[log_odds(one, kind) for kind in ("common", "rare")] for one in drawn],
        columns=["w", "r"], dtype=float,
    )  # fmt: skip
    lacking = expected.isna().sum()
    assert 0 < lacking["r"] < n
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match=f"'r' in {lacking['r']}"):
        found = mfg.bootstrap(
            model, cluster=cluster, replications=n, random_seed=2, progressbar=False
        )
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert found.attrs["undetermined"] == lacking[lacking > 0].to_dict()
    assert found.attrs["n_failed"] == 0


def test_bootstrap_has_no_estimate_where_all_choose_alike():
    """The maximum is at infinity, wherever a climb ends."""
    model = rare_kind()
    frame = model.panel.to_frame()
    first = frame.agent.astype(str) == "0"
    rare = frame.kind.astype(str) == "rare"
    frame.loc[rare, "action"] = np.where(first[rare], "a", "b")
    alike = model.with_panel(mfg.Trajectories.from_frame(frame, types=["kind"]))
    n = 15
    drawn = [resample(alike.panel, alike.panel.agents, seed) for seed in seeds_of(3, n)]
    odds = pd.Series([log_odds(one, "rare") for one in drawn], dtype=float)
    assert 0 < np.isinf(odds).sum() < n
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="'r' in"):
        found = mfg.bootstrap(alike, replications=n, random_seed=3, progressbar=False)
    np.testing.assert_allclose(found["r"], odds.where(np.isfinite(odds)), atol=2e-3)
    assert found["w"].notna().all()


def test_bootstrap_keeps_what_the_whole_panel_leaves_open_where_it_was():
    """Terms that are one and the same do not make every resample a failure."""
    model = thin()
    twice = {"w": lambda x: x.action == "a", "v": lambda x: 1.0 * (x.action == "a")}
    game = model.game
    open_sum = mfg.TrajectoryModel(
        game, mfg.linear_reward(twice, dist.Normal(0.0, 1.0)), model.panel.subset(range(1, 12)),
        mean_field=np.full((4, 2), 0.5),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        found = mfg.bootstrap(open_sum, replications=5, random_seed=1, progressbar=False)
    assert found.attrs["undetermined"] == {}
    panel = open_sum.panel
    for seed, total in zip(seeds_of(1, 5), found.sum(axis=1), strict=True):
        share = np.mean(resample(panel, panel.agents, seed).action == 0)
        assert total == pytest.approx(np.log(share / (1 - share)), abs=2e-3)


def test_bootstrap_of_nothing_that_can_be_fitted_is_an_error():
    """Where no resample has an estimate there is no table."""
    panel = thin().panel
    seed = next(
        s for s in range(50)
        if all(int(resample(panel, panel.agents, k).time.max()) < 3 for k in seeds_of(s, 2))
    )  # fmt: skip
    with pytest.raises(mfg.exceptions.ConvergenceError, match="none of the 2 resamples"):
        mfg.bootstrap(thin(), replications=2, random_seed=seed, progressbar=False)


def test_kfold_leaves_out_the_fold_whose_rest_cannot_be_fitted():
    """The others' scores are those that they have by themselves."""
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="1 of 4 folds"):
        found = mfg.checks.kfold(
            thin(), FIT, folds=4, by="agent", mean_field="empirical", random_seed=1,
            progressbar=False,
        )  # fmt: skip
    assert found.n_data_points == found.elpd_i.size == 9
    assert "0" not in found.elpd_i["agent"].values
    assert found.elpd_i.attrs["n_failed"] == 1
    along = mfg.checks.kfold(thin(), FIT, folds=4, by="agent", random_seed=1, progressbar=False)
    np.testing.assert_allclose(
        found.elpd_i.values, along.elpd_i.sel(agent=found.elpd_i["agent"]).values, rtol=1e-5
    )
