"""Laplace's approximation and variational inference against quadrature, NUTS and closed forms."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.integrate
import torch
from games import avoid_crowds, two_roads

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.models import market
from mfgppl.posterior.approximation import effective_share, pareto_shape
from mfgppl.posterior.chain_starts import last_draws

GUIDES = ["full_rank", "diagonal", "low_rank", "flow"]
MONTE_CARLO = 5.0  # standard errors
MIXING = {"mass_matrix": "low_rank", "target_accept": 0.95}  # margin and crowding correlate by 0.99


@pytest.fixture(scope="module")
def known():
    """A market of 300 firms with its flow known: margin and crowding are strongly correlated."""
    game = market.game()
    world = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=300, random_seed=1)
    return mfg.TrajectoryModel(game, market.reward, panel, mean_field=world.mean_field)


@pytest.fixture(scope="module")
def normal(known):
    """Draws of the market's posterior by Laplace's approximation."""
    return mfg.laplace(known, random_seed=4, progressbar=False)


@pytest.fixture(scope="module")
def alone():
    """A model with one parameter, whose posterior can be integrated."""
    game = two_roads()
    world = mfg.solve_equilibrium(
        game, avoid_crowds, parameters={"crowding": 1.0, "effort": 0.4}
    ).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=60, random_seed=2)

    def reward(x):
        return -pyro.sample("effort", dist.LogNormal(0.0, 1.0)) * (x.action == "turn")

    return mfg.TrajectoryModel(game, reward, panel)


def fitted(model, **options):
    """Return variational draws; that a normal misses skewness is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        return mfg.vi(model, **options)


def quadrature(model):
    """Return the log evidence, the mean and the standard deviation of the unconstrained value."""
    evaluate = density_of(model).evaluator()
    grid = np.linspace(-8.0, 4.0, 4001)
    logs = np.array([evaluate(np.array([v]))[0] for v in grid])
    top = logs.max()
    weight = np.exp(logs - top)
    total = scipy.integrate.simpson(weight, x=grid)
    mean = scipy.integrate.simpson(weight * grid, x=grid) / total
    spread = scipy.integrate.simpson(weight * (grid - mean) ** 2, x=grid) / total
    return top + np.log(total), mean, np.sqrt(spread), grid[logs.argmax()]


def means(tree, names):
    return np.array([float(tree["posterior"][n].mean()) for n in names])


def spreads(tree, names):
    return np.array([float(tree["posterior"][n].std()) for n in names])


def test_laplace_is_the_normal_at_the_mode(alone):
    """Its draws have the mode as mean and the inverse curvature, by differences, as variance."""
    *_, mode = quadrature(alone)
    evaluate = density_of(alone).evaluator()
    h = 1e-4
    slopes = [evaluate(np.array([mode + d]))[1][0] for d in (h, -h)]
    expected = (-(slopes[0] - slopes[1]) / (2 * h)) ** -0.5
    n = 4000
    tree = mfg.laplace(alone, draws=n, random_seed=3, log_likelihood=False, progressbar=False)
    values = np.log(tree["posterior"]["effort"].values.ravel())
    # the grid of the mode has steps of 0.003
    assert values.mean() == pytest.approx(mode, abs=0.003 + MONTE_CARLO * expected / n**0.5)
    assert values.std() == pytest.approx(expected, rel=MONTE_CARLO / (2 * n) ** 0.5)
    normal = -0.5 * ((values - mode) / expected) ** 2 - np.log(expected * (2 * np.pi) ** 0.5)
    np.testing.assert_allclose(tree["sample_stats"]["log_q"].values.ravel(), normal, atol=0.1)


def test_laplace_agrees_with_nuts_where_the_posterior_is_nearly_normal(known, normal):
    """Means within a third of a standard deviation, standard deviations within a tenth."""
    names = ["margin", "crowding", "menu_cost"]
    draws = mfg.nuts(known, draws=1500, random_seed=5, progressbar=False, **MIXING)
    sizes = spreads(draws, names)
    assert (np.abs(means(normal, names) - means(draws, names)) < sizes / 3).all()
    np.testing.assert_allclose(spreads(normal, names), sizes, rtol=0.1)
    assert normal.attrs["pareto_k"] < 0.7
    assert normal.attrs["sampler"] == "laplace"


def test_the_bound_is_below_the_evidence_and_close_to_it(alone):
    """The evidence lower bound of a normal misses the integral by what skewness costs."""
    evidence, mean, spread, _ = quadrature(alone)
    tree = fitted(alone, random_seed=6, max_steps=2000, particles=4)
    assert tree.attrs["elbo"] <= evidence + MONTE_CARLO * tree.attrs["elbo_se"]
    assert tree.attrs["elbo"] >= evidence - 0.05
    values = np.log(tree["posterior"]["effort"].values.ravel())
    assert values.mean() == pytest.approx(mean, abs=0.25 * spread)
    assert values.std() == pytest.approx(spread, rel=0.2)


def test_independent_entries_are_too_narrow_by_what_correlation_hides(known):
    """The diagonal family has the conditional, not the marginal, standard deviations."""
    tree = fitted(known, guide="diagonal", random_seed=7, max_steps=1000, particles=2)
    mode = mfg.map_estimate(known, space="unconstrained", progressbar=False)
    conditional = np.diag(mode.information) ** -0.5
    marginal = np.diag(np.linalg.inv(mode.information)) ** 0.5
    values = np.log(tree["posterior"]["margin"].values.ravel())
    assert marginal[0] > 3 * conditional[0]
    assert values.std() == pytest.approx(conditional[0], rel=0.25)


@pytest.mark.parametrize("guide", GUIDES)
def test_each_family_finds_the_posterior(known, normal, guide):
    """Means lie within a posterior standard deviation; the tree has a result's groups."""
    names = ["margin", "crowding", "menu_cost"]
    tree = fitted(known, guide=guide, random_seed=8, draws=500, max_steps=300, particles=2)
    off = np.abs(means(tree, names) - means(normal, names))
    if guide != "flow":  # which begins anywhere and takes thousands of steps
        assert (off < spreads(normal, names)).all()
    assert set(tree.children) >= {"posterior", "log_likelihood", "log_prior", "sample_stats"}
    assert tree["posterior"].sizes["draw"] == 500


@pytest.mark.parametrize(
    ("scale", "shape"), [(0.9, 0.19), (0.7, 0.51), (0.5, 0.75)], ids=["wide", "narrow", "narrower"]
)
def test_the_shape_is_that_of_the_weights_tail(scale, shape):
    """Weights of a standard normal over one of scale s have a Pareto tail of shape 1 - s^2."""
    x = np.random.default_rng(0).standard_normal(50_000)
    found = pareto_shape(-0.5 * (scale * x) ** 2 + 0.5 * x**2)
    # the estimator is fitted to a finite tail, with a prior towards 1/2
    assert found == pytest.approx(shape, abs=0.12)


def test_equal_weights_have_no_tail():
    """An approximation that is exact is as good as can be."""
    assert pareto_shape(np.zeros(100)) == -np.inf


def test_a_poor_approximation_is_told():
    """In the funnel of a hierarchy, far from normal, the Pareto shape says so in a warning."""
    game = two_roads()
    policy = torch.full(game.shape, 0.5, dtype=torch.float64)
    panel = mfg.simulate(game, policy, game.initial.repeat(4, 1), n_agents=3, random_seed=1)

    def reward(x):
        spread = pyro.sample("spread", dist.LogNormal(0.0, 2.0))
        effort = pyro.sample("effort", dist.Normal(0.0, spread))
        return -effort * (x.action == "turn")

    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="Pareto shape"):
        tree = mfg.laplace(mfg.TrajectoryModel(game, reward, panel), random_seed=1)
    assert tree.attrs["warnings"]


def test_the_seed_decides_and_nothing_else_is_touched(alone):
    """Same seed, same draws; torch's state and Pyro's store are as before."""
    state, names = torch.get_rng_state(), set(pyro.get_param_store())
    trees = [fitted(alone, random_seed=s, max_steps=100, particles=2, draws=50) for s in (1, 1, 2)]
    values = [t["posterior"]["effort"].values for t in trees]
    np.testing.assert_array_equal(values[0], values[1])
    assert (values[0] != values[2]).any()
    assert torch.equal(state, torch.get_rng_state())
    assert set(pyro.get_param_store()) == names
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_a_report_takes_an_approximation(normal, tmp_path):
    """The page is written for draws without a sampler's statistics."""
    tree = normal
    mfg.report(tree, tmp_path / "laplace.html")
    assert "crowding" in (tmp_path / "laplace.html").read_text("utf-8")
    mfg.save(tree, tmp_path / "laplace.nc")
    again = mfg.load(tmp_path / "laplace.nc")
    np.testing.assert_array_equal(again["posterior"]["margin"], tree["posterior"]["margin"])
    assert again.attrs["pareto_k"] == tree.attrs["pareto_k"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: mfg.laplace("model"), TypeError, "`model`.*TrajectoryModel"),
        (lambda m: mfg.laplace(m, draws=0), ValueError, "`draws`.*at least 1"),
        (lambda m: mfg.laplace(m, n_samples=5), TypeError, "did you mean `draws`"),
        (lambda m: mfg.vi(m, guide="fullrank"), ValueError, "`guide`.*did you mean `full_rank`"),
        (lambda m: mfg.vi(m, learning_rate=0), ValueError, "`learning_rate`.*above 0"),
        (lambda m: mfg.vi(m, particles=0), ValueError, "`particles`.*at least 1"),
        (lambda m: mfg.vi(m, max_steps=0), ValueError, "`max_steps`.*at least 1"),
    ],
)
def test_wrong_arguments_are_told(alone, call, error, words):
    """What is wrong, what came and what would do."""
    with pytest.raises(error, match=words):
        call(alone)


@pytest.fixture(scope="module")
def two_faced():
    """A posterior with two modes that mirror each other: the sign of `root` has no effect."""
    game = two_roads()
    world = mfg.solve_equilibrium(
        game, avoid_crowds, parameters={"crowding": 1.0, "effort": 0.8}
    ).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=200, random_seed=3)

    def reward(x):
        root = pyro.sample("root", dist.Normal(0.0, 1.0))
        return -(root**2) * (x.action == "turn")

    return mfg.TrajectoryModel(game, reward, panel)


def test_laplace_finds_both_modes_from_several_starts(two_faced):
    """One start sees one face; several see both, each with half the draws."""
    one = mfg.laplace(two_faced, random_seed=1, init={"root": 1.0}, progressbar=False)
    assert one.attrs["mode_weights"] == [1.0]
    assert (one["posterior"]["root"] > 0).all()
    both = mfg.laplace(two_faced, random_seed=1, restarts=8, draws=2000, progressbar=False)
    np.testing.assert_allclose(both.attrs["mode_weights"], [0.5, 0.5], atol=1e-6)
    positive = float((both["posterior"]["root"] > 0).mean())
    assert abs(positive - 0.5) < MONTE_CARLO * 0.5 / 2000**0.5
    assert both.attrs["pareto_k"] < 0.7
    # the mixture's density at each draw: both normals have the same spread, by symmetry
    values, logs = (
        both[g][v].values.ravel() for g, v in (("posterior", "root"), ("sample_stats", "log_q"))
    )
    spread = np.abs(values).std()
    centre = np.abs(values).mean()
    normals = [np.exp(-0.5 * ((values - c) / spread) ** 2) for c in (centre, -centre)]
    density = 0.5 * sum(normals) / (spread * (2 * np.pi) ** 0.5)
    np.testing.assert_allclose(logs, np.log(density), atol=0.3)


def test_a_prior_however_wide_has_curvature_of_its_own(alone):
    """A parameter that only its prior knows is drawn from it: its unit makes no difference."""

    def reward(x):
        effort = pyro.sample("effort", dist.Normal(0.0, 1.0))
        idle = pyro.sample("idle", dist.Normal(0.0, 1e12))
        return -effort * (x.action == "turn") + 0.0 * idle

    model = mfg.TrajectoryModel(alone.game, reward, alone.panel)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="do not identify idle"):
        tree = mfg.laplace(model, draws=4000, random_seed=1, init={"idle": 0.0, "effort": 0.0})
    # five standard errors of the spread of 4,000 normal draws
    assert float(tree["posterior"]["idle"].std()) == pytest.approx(1e12, rel=5 / np.sqrt(8000))
    assert float(tree["posterior"]["effort"].std()) > 0.0


def test_nuts_starts_each_chain_at_a_draw_of_its_own(known, normal):
    """A result of one chain serves four, which then need little tuning."""
    short = {"draws": 1000, "tune": 300, "progressbar": False}
    draws = mfg.nuts(known, init=normal, random_seed=5, **short, **MIXING)
    names = ["margin", "crowding", "menu_cost"]
    sizes = spreads(normal, names)
    assert (np.abs(means(draws, names) - means(normal, names)) < sizes / 3).all()
    starts = last_draws(density_of(known), normal, 4)
    values = np.stack([start.theta for start in starts])
    assert len(np.unique(values[:, 0])) == 4
    np.testing.assert_allclose(values[0, 0], np.log(normal["posterior"]["margin"][0, -1]))


def test_a_few_draws_with_all_the_weight_have_no_good_shape():
    """A tail that underflows looks short; the effective number says what it is."""
    logs = np.concatenate([[0.0], np.full(999, -1e6)])
    assert effective_share(logs) == pytest.approx(1e-3)
    assert pareto_shape(logs) == np.inf
    even = np.zeros(1000) + 1e-3 * np.random.default_rng(0).standard_normal(1000)
    assert effective_share(even) == pytest.approx(1.0, abs=1e-5)


def test_few_draws_are_judged_by_many(known, normal):
    """The shape is that of a thousand, however few are kept."""
    few = mfg.laplace(known, draws=3, random_seed=4, progressbar=False)
    assert few.attrs["pareto_k"] == normal.attrs["pareto_k"]


def test_a_ridge_is_one_mode(alone):
    """Starts that end apart along a direction without curvature are at the same mode."""

    def reward(x):
        a = pyro.sample("a", dist.Normal(0.0, 1e7))
        return -(a + pyro.sample("b", dist.Normal(0.0, 1e7))) * (x.action == "turn")

    model = mfg.TrajectoryModel(alone.game, reward, alone.panel)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="no curvature along"):
        tree = mfg.laplace(model, restarts=3, random_seed=1, progressbar=False)
    assert tree.attrs["mode_weights"] == [1.0]


def test_draws_at_which_the_posterior_has_no_density_have_no_weight(alone):
    """A normal reaches past the end of a posterior that is cut off beside its mode."""

    def reward(x, end=-torch.inf):
        effort = pyro.sample("effort", dist.Normal(0.0, 1.0))
        pyro.factor("cut", torch.where(effort < end, -torch.inf, 0.0))
        return -effort * (x.action == "turn")

    mode = mfg.map_estimate(mfg.TrajectoryModel(alone.game, reward, alone.panel), progressbar=False)
    end = float(mode.params["effort"] - mode.bse["effort"])
    model = mfg.TrajectoryModel(alone.game, lambda x: reward(x, end), alone.panel)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="no density at") as caught:
        draws = mfg.laplace(
            model, init=mode, random_seed=1, progressbar=False, flow_bias=False
        )  # fmt: skip
    lost = np.isneginf(draws["sample_stats"]["lp"]).sum().item()
    cut_off = (draws["posterior"]["effort"] < end).sum().item()
    assert lost == cut_off
    assert 100 < lost < 220  # 16 % of 1000 are below one standard deviation
    assert f"no density at {lost} of 1000 draws" in str(caught[0].message)
    assert 0 < draws.attrs["effective_share"] < 1
    assert np.isfinite(draws.attrs["pareto_k"])


def test_weights_of_nothing_have_no_shape():
    """Where no draw has a density, none is effective; else the lost count as the least."""
    none = np.full(1000, -np.inf)
    assert pareto_shape(none) == np.inf
    assert effective_share(none) == 0.0
    rng = np.random.default_rng(3)
    weights = -0.5 * np.abs(rng.standard_normal(1000))
    some = np.where(np.arange(1000) < 900, weights, -np.inf)
    least = np.where(np.arange(1000) < 900, weights, weights[:900].min())
    assert pareto_shape(some) == pytest.approx(pareto_shape(least))
    assert effective_share(some) == pytest.approx(0.9 * effective_share(weights[:900]))


def test_a_mode_without_density_is_refused(alone):
    """An approximation needs a centre."""

    def nowhere(x):
        effort = pyro.sample("effort", dist.Normal(0.0, 1.0))
        pyro.factor("none", torch.where(effort < 100.0, -torch.inf, 0.0))
        return -effort * (x.action == "turn")

    model = mfg.TrajectoryModel(alone.game, nowhere, alone.panel)
    with pytest.raises(mfg.exceptions.ConvergenceError, match="finite posterior density"):
        mfg.laplace(model, random_seed=1, progressbar=False, flow_bias=False)
