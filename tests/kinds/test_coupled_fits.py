"""What is done with a fit whose kinds, unseen, make up one crowd that is solved for."""

import functools
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import random_rows

import mfgppl as mfg

S, A, T, AGENTS = 3, 2, 4, 150
TRUTH = {"crowding": 1.5, "cost": [-0.8, 1.8], "share": [0.6, 0.4]}
GAME = mfg.MeanFieldGame(
    states={"stock": ["low", "mid", "high"]}, actions=["stay", "move"], horizon=T,
    transition=random_rows(41, S, A, S), initial=random_rows(42, S), discount=0.9, temperature=0.7,
)  # fmt: skip
quick = functools.partial(mfg.mle, flow_bias=False, progressbar=False)


def program(x):
    crowding = pyro.sample("crowding", dist.Normal(1.0, 0.5))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    share = pyro.sample("share", dist.Dirichlet(4 * torch.ones(2)))
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(share))
    return (x.stock == "high") - crowding * x.density - cost[kind] * (x.action == "move")


def alike(x):
    crowding = pyro.sample("crowding", dist.Normal(1.0, 0.5))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
    return (x.stock == "high") - crowding * x.density - cost * (x.action == "move")


@pytest.fixture(scope="module")
def model():
    typed, reward = mfg.kinds.as_types(GAME, program, TRUTH)
    played = mfg.solve_equilibrium(typed, reward, throw=True).value
    panel = mfg.simulate(
        typed, played.policy, played.mean_field, n_agents=AGENTS, random_seed=1
    ).drop_type("kind")
    return mfg.TrajectoryModel(GAME, program, panel, mean_field="equilibrium")


@pytest.fixture(scope="module")
def fit(model):
    return quick(model)


@pytest.fixture(scope="module")
def one(model):
    """The model of one kind, and its fit."""
    plain = mfg.TrajectoryModel(GAME, alike, model.panel, mean_field="equilibrium")
    return plain, quick(plain)


def by_cost(values):
    """Return both costs in order."""
    return np.sort(values, axis=-1)


def test_a_mode_lies_between_prior_and_maximum(model, fit):
    """Of costs whose prior is at zero, the mode is nearer to zero, in the direction of both."""
    mode = mfg.map_estimate(model, flow_bias=False, progressbar=False)
    names = ["cost[0]", "cost[1]"]
    assert mode.converged
    assert (by_cost(np.abs(mode.params[names])) < by_cost(np.abs(fit.params[names])) + 0.05).all()
    assert mode.llf <= fit.llf


@pytest.mark.slow
def test_normal_approximations_agree(model):
    """Laplace's and the variational posterior have the same centre, within a standard deviation."""
    found, drawn = {}, {"draws": 200, "random_seed": 1, "flow_bias": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)  # so few steps
        each = {
            "laplace": mfg.laplace(model, progressbar=False, **drawn),
            "vi": mfg.vi(model, particles=4, max_steps=40, **drawn),
        }
    for name, draws in each.items():
        assert draws["sample_stats"]["lp"].notnull().all()
        costs = by_cost(draws["posterior"]["cost"].to_numpy().reshape(-1, 2))
        found[name] = costs.mean(0), costs.std(0)
        assert draws["kinds"].sizes["agent"] == AGENTS
    assert (np.abs(found["laplace"][0] - found["vi"][0]) < found["laplace"][1]).all()


def test_a_bootstrap_keeps_labels(model, fit):
    """Refits of resampled agents have the costs of the fit's kinds, each in its place."""
    found = mfg.bootstrap(model, replications=6, random_seed=1, progressbar=False)
    names = ["cost[0]", "cost[1]", "share[0]"]
    assert ((found[names].mean() - fit.params[names]).abs() < 3 * fit.bse[names]).all()


def test_a_jackknife_has_no_counted_flow_to_correct(model):
    """The crowd is solved for: the refusal names the fit that counts its error."""
    with pytest.raises(ValueError, match="solved for, and mle counts its error already"):
        mfg.jackknife(model)


def test_tests_of_hypotheses(model, fit, one):
    """Each finds that there are two costs, in panels drawn with two."""
    plain, restricted = one
    ratio = mfg.hypotheses.likelihood_ratio_test(restricted, fit)
    assert ratio.statistic == pytest.approx(2 * (fit.llf - restricted.llf))
    assert ratio.p < 1e-6
    assert mfg.hypotheses.wald_test(fit, "cost[0] = cost[1]").p < 1e-6
    closer = mfg.hypotheses.vuong_test(model, fit, plain, restricted, simulations=2000)
    assert closer.statistic > 3


def test_cross_validation_prefers_two_kinds(model, one):
    """Agents left out are explained better by two."""
    scores = [
        mfg.checks.kfold(m, quick, folds=2, progressbar=False).elpd for m in (model, one[0])
    ]  # fmt: skip
    assert scores[0] > scores[1] + 20


def test_panels_drawn_at_the_truth_are_fitted():
    """Recovery draws, solves and fits each anew; estimates are near the truth."""
    found = mfg.calibration.recovery(
        GAME, program, truth=TRUTH, n_agents=AGENTS, panels=3, mean_field="equilibrium",
        random_seed=1, progressbar=False,
    )  # fmt: skip
    table = found.table
    assert np.isfinite(table.to_numpy(dtype=float)).any()


@pytest.mark.slow
def test_ranks_are_worked_out(model):
    """Simulation-based calibration draws kinds, whose labels it brings into one order."""

    def sampled(here, *, random_seed):
        return mfg.laplace(
            here, draws=100, random_seed=random_seed, flow_bias=False, progressbar=False
        )

    found = mfg.calibration.sbc(
        model, panels=10, fit=sampled, random_seed=1, progressbar=False
    ).table
    assert {"crowding", "cost[0]", "cost[1]"} <= set(found.index)


def test_treatments_show_the_coupled_fit(model, fit):
    """Beside the plug-in's, from where it starts; how near the crowd is to it is not judged."""
    plug_in = mfg.TrajectoryModel(GAME, program, model.panel)
    found = mfg.flows.treatments(plug_in, parts=5, folds=2, replications=3)
    assert found.fits["coupled"].llf == pytest.approx(fit.llf, abs=1e-6)
    assert np.isnan(found.p_equilibrium)
    assert found.recommended != "coupled"
    with pytest.raises(ValueError, match="mean_field='empirical'"):
        mfg.flows.treatments(model)


@pytest.mark.slow
def test_draws_without_an_equilibrium_have_no_weight(model):
    """A wide prior of conformity reaches where no equilibrium is found near the fitted one."""

    def wide(x):
        crowding = pyro.sample("crowding", dist.Normal(-20.0, 20.0))
        cost = pyro.sample("cost", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return (x.stock == "high") - crowding * x.density - cost[kind] * (x.action == "move")

    panel = model.panel.subset(np.arange(60))
    unsure = mfg.TrajectoryModel(GAME, wide, panel, mean_field="equilibrium")
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="no density at"):
        draws = mfg.laplace(
            unsure, draws=1000, random_seed=0, progressbar=False, flow_bias=False
        )  # fmt: skip
    lost = np.isneginf(draws["sample_stats"]["lp"]).to_numpy()
    residual = draws["sample_stats"]["equilibrium_residual"].to_numpy()
    assert lost.any()
    np.testing.assert_array_equal(lost, ~np.isfinite(residual))


@pytest.mark.parametrize("first", [0, 50, 100])
def test_few_agents_are_fitted_as_from_the_truth(model, first):
    """The default start, the best of several groupings, leads as high as the truth does."""
    panel = model.panel.subset(np.arange(first, first + 50))
    few = mfg.TrajectoryModel(GAME, program, panel, mean_field="equilibrium")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what fifty agents do not identify
        assert quick(few).llf >= quick(few, init=TRUTH).llf - 1e-6
