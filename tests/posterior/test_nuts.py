"""Posterior draws against quadrature, between samplers, and their bookkeeping."""

import functools
import os
import random
import signal
import threading
import warnings

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from reference import tiny_case

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.models import market, pricing
from mfgppl.posterior import chains

RANGES = [(-2.0, 2.5), (0.0, 4.0)]  # of both parameters, ten standard deviations wide


def two_parameters(x):
    pull = pyro.sample("pull", dist.Normal(0.0, 1.0))
    crowd = pyro.sample("crowd", dist.HalfNormal(2.0))
    pyro.deterministic("ratio", pull / crowd)
    return pull * (x.action == "a0") - crowd * x.density * (x.action == "a1")


@pytest.fixture(scope="module")
def model():
    """A two-parameter model of a tiny unbalanced panel."""
    case = tiny_case(4, n_paths=60)
    return mfg.TrajectoryModel(case.game, two_parameters, case.panel)


@pytest.fixture(scope="module")
def draws(model):
    """Four chains of it."""
    return mfg.nuts(model, target_accept=0.95, random_seed=3, progressbar=False)


@functools.cache
def moments_by_quadrature(model):
    """Return mean and variance of both parameters by the midpoint rule and the plain twin."""
    program = density_of(model).program
    pull, crowd = (low + (np.arange(30) + 0.5) * (high - low) / 30 for low, high in RANGES)
    log = np.empty((30, 30))
    for i, a in enumerate(pull):
        for j, b in enumerate(crowd):
            values = {"pull": torch.tensor(a), "crowd": torch.tensor(b)}
            twin = model.law.log_likelihood(program.core_at(values)).item()
            log[i, j] = twin - a**2 / 2 - b**2 / 8
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    means = (weight.sum(1) @ pull, weight.sum(0) @ crowd)
    squares = (weight.sum(1) @ pull**2, weight.sum(0) @ crowd**2)
    return means, tuple(s - m**2 for s, m in zip(squares, means, strict=True))


def test_posterior_moments_equal_quadrature(model, draws):
    """Means are within 5 Monte Carlo errors of a grid's, variances within 15 percent."""
    means, variances = moments_by_quadrature(model)
    errors = arviz_stats.mcse(draws["posterior"].dataset)
    for name, mean, variance in zip(["pull", "crowd"], means, variances, strict=True):
        drawn = draws["posterior"][name]
        assert abs(float(drawn.mean()) - mean) < 5 * float(errors[name])
        assert float(drawn.var()) == pytest.approx(variance, rel=0.15)


def test_samplers_agree(model, draws):
    """Draws by nutpie and by Pyro's NUTS agree within Monte Carlo error, with like statistics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        other = mfg.nuts(
            model, draws=150, tune=100, chains=1, random_seed=3, sampler="pyro", progressbar=False
        )
    first, second = (arviz_stats.mcse(d["posterior"].dataset) for d in (draws, other))
    for name in ("pull", "crowd"):
        gap = float(draws["posterior"][name].mean() - other["posterior"][name].mean())
        assert abs(gap) < 5 * np.hypot(float(first[name]), float(second[name]))
    assert set(other["sample_stats"].data_vars) == set(draws["sample_stats"].data_vars)
    lp = [float(d["sample_stats"]["lp"].mean()) for d in (draws, other)]
    assert lp[0] == pytest.approx(lp[1], abs=0.5)
    stats = other["sample_stats"].dataset
    assert ((stats["acceptance_rate"] >= 0) & (stats["acceptance_rate"] <= 1)).all()
    assert (stats["energy"] >= -stats["lp"] - 20).all()


@pytest.mark.parametrize(
    ("sampler", "mass_matrix", "size"),
    [
        ("nutpie", "low_rank", {"draws": 1000, "tune": 500, "chains": 4}),
        ("pyro", "dense", {"draws": 150, "tune": 100, "chains": 1}),
    ],
)
def test_each_mass_matrix_draws_from_the_same_posterior(model, sampler, mass_matrix, size):
    """Means are within 5 Monte Carlo errors of a grid's, and the result says what was adapted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        tree = mfg.nuts(
            model, sampler=sampler, mass_matrix=mass_matrix, target_accept=0.95, random_seed=5,
            progressbar=False, **size,
        )  # fmt: skip
    means, _ = moments_by_quadrature(model)
    errors = arviz_stats.mcse(tree["posterior"].dataset)
    for name, mean in zip(["pull", "crowd"], means, strict=True):
        assert abs(float(tree["posterior"][name].mean()) - mean) < 5 * float(errors[name])
    assert tree.attrs["mass_matrix"] == mass_matrix


def test_a_low_rank_mass_matrix_draws_more_from_a_correlated_posterior_per_gradient():
    """Margin and crowding correlate by 0.99: the same law, and twice the effective size at least.

    Per gradient, of each parameter; means within 5 Monte Carlo errors, standard deviations within
    5 of theirs.
    """
    model = market.model(mfg.Trajectories.from_frame(market.frame(300), **market.COLUMNS))
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        for name in ("diagonal", "low_rank"):
            found[name] = mfg.nuts(
                model, draws=500, tune=500, mass_matrix=name, random_seed=1, progressbar=False,
                log_likelihood=False, flow_bias=False,
            )  # fmt: skip
    posteriors = {name: tree["posterior"].dataset for name, tree in found.items()}
    drawn = posteriors["low_rank"]
    assert np.corrcoef(drawn["margin"].values.ravel(), drawn["crowding"].values.ravel())[0, 1] > 0.9
    gains = {}
    for name, tree in found.items():
        gradients = float(tree["sample_stats"]["n_steps"].sum())
        gains[name] = arviz_stats.ess(posteriors[name]) / gradients
    for method, moment in (("mean", xr.Dataset.mean), ("sd", xr.Dataset.std)):
        one, other = (moment(p) for p in posteriors.values())
        errors = [arviz_stats.mcse(p, method=method) for p in posteriors.values()]
        for k in drawn:
            error = np.hypot(*(float(e[k]) for e in errors))
            assert abs(float(one[k] - other[k])) < 5 * error
    for k in drawn:
        assert float(gains["low_rank"][k]) > 2 * float(gains["diagonal"][k])


def test_log_density_of_draws_is_the_models(model, draws):
    """`lp` is the unconstrained log density; log likelihood and prior are its parts."""
    density = density_of(model)
    tree = draws.isel(draw=slice(0, 3))
    evaluate = density.evaluator()
    for chain in range(4):
        for draw in range(3):
            at = {"chain": chain, "draw": draw}
            values = {k: tree["posterior"][k].isel(at).item() for k in ("pull", "crowd")}
            lp = evaluate(density.program.free(values))[0]
            parts = float(tree["log_likelihood"]["actions"].isel(at).sum())
            parts += sum(float(tree["log_prior"][k].isel(at)) for k in ("pull", "crowd"))
            assert tree["sample_stats"]["lp"].isel(at).item() == pytest.approx(lp, abs=1e-8)
            # the Jacobian of the positive parameter is its log
            assert parts + np.log(values["crowd"]) == pytest.approx(lp, abs=1e-8)


def test_groups_and_dims(model, draws):
    """All groups are there, labelled; the trajectory is the unit of the log likelihood."""
    assert {
        "posterior", "sample_stats", "log_likelihood", "log_prior", "posterior_predictive",
        "observed_data", "constant_data",
    } <= set(draws.children)  # fmt: skip
    assert draws["log_likelihood"]["actions"].dims == ("chain", "draw", "trajectory")
    assert draws["log_likelihood"].sizes["trajectory"] == model.panel.n_trajectories
    assert set(draws["posterior"].data_vars) == {"pull", "crowd", "ratio"}
    assert set(draws["log_prior"].data_vars) == {"pull", "crowd"}
    assert draws["constant_data"]["mean_field"].dims == ("time", "state")
    counts = draws["observed_data"]["action_counts"]
    assert counts.dims == ("time", "state", "action")
    assert float(counts.sum()) == model.panel.n_decisions
    assert "ratio" not in draws["observed_data"]
    for name in ("lp", "energy", "diverging", "tree_depth", "n_steps", "step_size",
                 "acceptance_rate", "reached_max_treedepth"):  # fmt: skip
        assert draws["sample_stats"][name].dims == ("chain", "draw")
    for key in ("versions", "random_seed", "sampling_time", "game_hash", "data_hash", "warnings"):
        assert key in draws.attrs


def test_arviz_works_at_once(draws):
    """Summary, LOO and prior sensitivity take the tree as it is."""
    assert arviz_stats.summary(draws).shape[0] == 3
    assert np.isfinite(arviz_stats.loo(draws).elpd)
    table = arviz_stats.psense_summary(draws, var_names=["pull", "crowd"])
    assert list(table.index) == ["pull", "crowd"]


def test_same_seed_same_draws_whatever_the_cores(model, draws):
    """Draws depend on the seed alone; other seeds give others."""
    options = {"draws": 50, "tune": 100, "chains": 4, "progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        one = mfg.nuts(model, random_seed=7, cores=1, **options)
        two = mfg.nuts(model, random_seed=7, cores=2, **options)
        three = mfg.nuts(model, random_seed=8, cores=2, **options)
    np.testing.assert_array_equal(one["posterior"]["pull"], two["posterior"]["pull"])
    assert not np.array_equal(one["posterior"]["pull"], three["posterior"]["pull"])
    assert one["posterior_predictive"].equals(two["posterior_predictive"])
    chains = one["posterior"]["pull"].values
    assert not np.array_equal(chains[0], chains[1])


def test_fresh_seed_is_recorded_and_reproduces(model):
    """Without a seed one is drawn; giving it back gives the same draws."""
    options = {"draws": 20, "tune": 50, "chains": 2, "cores": 1, "progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        first = mfg.nuts(model, **options)
        again = mfg.nuts(model, random_seed=int(first.attrs["random_seed"]), **options)
    np.testing.assert_array_equal(first["posterior"]["pull"], again["posterior"]["pull"])


def test_fits_leave_no_trace(model):
    """Seeds of torch, NumPy and Python, the default type and Pyro's store stay as they were."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    random.seed(1)
    pyro.clear_param_store()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        mfg.mle(model)
        for sampler in ("nutpie", "pyro"):
            mfg.nuts(model, draws=5, tune=5, chains=1, cores=1, sampler=sampler, progressbar=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_default_dtype() == torch.float32
    assert not list(pyro.get_param_store().keys())


def test_two_fits_side_by_side_do_not_disturb_each_other(model):
    """Fits in two threads give what each gives alone."""
    other = pricing.model(name="base")
    alone = [mfg.mle(m, svi_steps=0, flow_bias=False).params for m in (model, other)]
    together = [None, None]

    def fit(k, which):
        together[k] = mfg.mle(which, svi_steps=0, flow_bias=False).params

    threads = [threading.Thread(target=fit, args=(k, m)) for k, m in enumerate((model, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("sampler", ["nutpie", "pyro"])
@pytest.mark.parametrize("cores", [1, 2])
def test_interrupt_returns_the_finished_draws(model, sampler, cores, monkeypatch):
    """Ctrl-C in the middle of a long run gives a valid, shorter result that says so."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    seen = []

    class Watched(chains.ChainBars):
        """The bars, which the test looks at."""

        def __enter__(self):
            seen[:] = self.watches
            return super().__enter__()

    def interrupt():
        """Press Ctrl-C when all chains that run have draws."""
        while not seen or min(seen[0].steps[:cores]) <= 100:
            if ended.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(chains, "ChainBars", Watched)
    ended = threading.Event()
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        with pytest.warns(mfg.exceptions.ConvergenceWarning, match="interrupted"):
            tree = mfg.nuts(
                model, draws=2_000_000, tune=20, chains=2, cores=cores, random_seed=1,
                sampler=sampler, progressbar=False, log_likelihood=False, max_treedepth=4,
            )  # fmt: skip
    finally:
        ended.set()
        watcher.join()
    assert 0 < tree["posterior"].sizes["draw"] < 2_000_000
    assert tree.attrs["interrupted"] == 1
    assert np.isfinite(tree["posterior"]["pull"]).all()


def test_checks_speak_after_every_fit(model):
    """Too few draws and chains are said, and stored with the result."""
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="effective sample size") as caught:
        tree = mfg.nuts(
            model, draws=20, tune=50, chains=2, cores=1, random_seed=1, progressbar=False,
            flow_bias=False,
        )  # fmt: skip
    assert any("2 chains" in m for m in tree.attrs["warnings"])
    assert "\n".join(tree.attrs["warnings"]) in str(caught[0].message)


def test_divergences_are_reported():
    """A funnel makes the sampler diverge, and the fit says so."""
    case = tiny_case(4)

    def funnel(x):
        scale = pyro.sample("scale", dist.Normal(0.0, 3.0))
        with pyro.plate("many", 8):
            w = pyro.sample("w", dist.Normal(0.0, torch.exp(scale)))
        return 1e-3 * w.sum() * (x.action == "a0")

    model = mfg.TrajectoryModel(case.game, funnel, case.panel)
    with (
        pytest.warns(mfg.exceptions.ConvergenceWarning, match="diverged"),
        pytest.warns(mfg.exceptions.IdentificationWarning, match=r"identify .*w\[0\] "),
    ):
        tree = mfg.nuts(
            model,
            draws=200,
            tune=200,
            chains=2,
            max_treedepth=6,
            target_accept=0.5,
            random_seed=1,
            progressbar=False,
        )
    assert tree["posterior"]["w"].dims == ("chain", "draw", "w_dim_0")
    assert tree["log_prior"]["w"].dims == ("chain", "draw")
    assert bool(tree["sample_stats"]["diverging"].any())


def test_wide_priors_give_the_mle():
    """On the supermarket panel NUTS means equal the MLE within Monte Carlo error and curvature."""
    model = pricing.model(name="base")
    tree = mfg.nuts(model, draws=500, tune=300, random_seed=1, progressbar=False)
    estimate = mfg.mle(model, svi_steps=0, flow_bias=False)
    table = arviz_stats.summary(tree, round_to="none")
    gap = (table["mean"] - estimate.params).abs()
    # the posterior mean differs from the mode by skewness, of the order of errors squared
    assert (gap < 5 * table["mcse_mean"] + 0.05 * estimate.bse).all()
    assert (table["r_hat"] < 1.01).all()
    np.testing.assert_allclose(table["sd"], estimate.bse, rtol=0.1)


def test_result_survives_a_file(draws, tmp_path):
    """Saved and loaded, a result has the same draws, labels and warnings."""
    mfg.save(draws, tmp_path / "fit.nc")
    again = mfg.load(tmp_path / "fit.nc")
    assert again["posterior"].dataset.equals(draws["posterior"].dataset)
    assert again.attrs["warnings"] == draws.attrs["warnings"]
    assert again.attrs["game_hash"] == draws.attrs["game_hash"]


def test_initial_values_are_taken(model):
    """Chains start where they are put."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        tree = mfg.nuts(
            model, draws=50, tune=50, chains=1, cores=1, init={"pull": 0.1, "crowd": 1.0},
            random_seed=1, progressbar=False,
        )  # fmt: skip
    assert tree["posterior"].sizes == {"chain": 1, "draw": 50}


def test_policies_by_draw(model, draws):
    """Policies are labelled laws; their average over visits are the choice probabilities."""
    policy = mfg.policy(model, draws, draws=20)
    assert policy.dims == ("chain", "draw", "time", "state", "action")
    assert policy.sizes["draw"] == 5
    np.testing.assert_allclose(policy.sum("action"), 1.0)
    first = {k: draws["posterior"][k][0, 0].item() for k in ("pull", "crowd")}
    at_point = mfg.policy(model, first)
    np.testing.assert_allclose(policy[0, 0], at_point)
    choice = mfg.choice_probabilities(model, draws, draws=20)
    visits = model.law.counts.actions.sum(-1)
    expected = np.einsum("ts,tsa->sa", visits, policy[0, 0].values) / visits.sum(0)[:, None]
    np.testing.assert_allclose(choice[0, 0], expected)
    estimate = mfg.mle(model)
    by_trajectory = mfg.log_likelihood(model, estimate)
    assert by_trajectory.dims == ("trajectory",)
    assert float(by_trajectory.sum()) == pytest.approx(estimate.llf, abs=1e-8)
    stored = draws["log_likelihood"]["actions"][0, 0].values
    np.testing.assert_allclose(mfg.log_likelihood(model, first), stored, atol=1e-10)
    np.testing.assert_allclose(
        mfg.policy(model, estimate), mfg.policy(model, dict(estimate.params))
    )
