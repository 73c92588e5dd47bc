"""Simulation-based calibration: against exact posteriors, and posteriors wrong in a known way."""

import functools

import cloudpickle
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.signal
import scipy.stats
import xarray as xr
from games import avoid_crowds, lone, played, two_roads

import mfgppl as mfg
from mfgppl._replication import seeds_of
from mfgppl.calibration import ranks as room
from mfgppl.calibration.ranks import Calibration, sbc
from mfgppl.plots.calibration import plot_ranks

N_AGENTS = 12
quick_laplace = functools.partial(mfg.laplace, draws=200, log_likelihood=False, progressbar=False)


def tree(n_chains=1, **sites):
    """Return draws by site as a result."""
    posterior = {k: (("chain", "draw"), v.reshape(n_chains, -1)) for k, v in sites.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(posterior)})


def likes(x):
    """One log odds, by a normal prior."""
    return pyro.sample("odds", dist.Normal(0.0, 1.5)) * (x.action == "yes")


@pytest.fixture(scope="module")
def coin():
    """Twelve agents who say yes or no once: the posterior of their log odds is known on a grid."""
    game = mfg.MeanFieldGame(
        states=["here"], actions=["no", "yes"], horizon=1, transition=np.ones((1, 2, 1)),
        initial=[1.0],
    )  # fmt: skip
    return mfg.TrajectoryModel(game, likes, played(game, likes, {"odds": 0.5}, N_AGENTS, 1))


def exact(model, *, random_seed, centre=0.0, scale=1.0):
    """Draw from the coin's posterior on a grid, moved and stretched about its mean."""
    grid = np.linspace(-8, 8, 4001)
    no, yes = model.law.counts.actions[0, 0]
    height = -yes * np.logaddexp(0, -grid) - no * np.logaddexp(0, grid) - 0.5 * (grid / 1.5) ** 2
    weight = np.exp(height - height.max())
    weight /= weight.sum()
    draws = np.random.default_rng(random_seed).choice(grid, 400, p=weight)
    middle = weight @ grid
    spread = np.sqrt(weight @ (grid - middle) ** 2)
    return tree(odds=middle + centre * spread + scale * (draws - middle))


def test_an_exact_posterior_has_uniform_ranks(coin):
    """Draws from the exact posterior on a grid stay within the bands."""
    found = sbc(coin, panels=100, fit=exact, random_seed=1, progressbar=False)
    assert found.calibrated
    assert list(found.ranks) == ["odds", "log_likelihood"]
    assert len(found.ranks) == 100
    assert (found.kept == room.MOST_KEPT).all()
    assert "the ranks of all 2 quantities are uniform" in repr(found)
    np.testing.assert_allclose(found.truths["odds"].std(), 1.5, rtol=5 / np.sqrt(2 * 100))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scale": 0.4}, "too narrow"),
        ({"scale": 2.5}, "too wide"),
        ({"centre": 0.7}, "biased high"),
        ({"centre": -0.7}, "biased low"),
    ],
)
def test_a_wrong_posterior_is_named(coin, wrong, words):
    """Draws stretched or moved from the exact posterior leave the band, and the words say how."""
    fit = functools.partial(exact, **wrong)
    found = sbc(coin, panels=80, fit=fit, random_seed=2, progressbar=False)
    assert not found.table.loc["odds", "inside"]
    assert words in found.table.loc["odds", "verdict"]
    assert f"odds is {found.table.loc['odds', 'verdict']}" in repr(found)
    assert found.table.loc["odds", "p"] < 0.01


def prior_of_roads(model, *, random_seed, draws=40):
    """Ignore the data: draws from the prior of `avoid_crowds`."""
    rng = np.random.default_rng(random_seed)
    crowding, effort = rng.standard_normal((2, draws))
    return tree(crowding=crowding, effort=np.abs(effort))


def test_the_log_likelihood_sees_a_fit_that_ignores_the_data(roads_model):
    """The prior as posterior has uniform ranks in all parameters; the log likelihood betrays it."""
    fit = functools.partial(prior_of_roads, draws=200)
    found = sbc(roads_model, panels=80, fit=fit, random_seed=3, progressbar=False)
    assert found.table["inside"].to_dict() == {
        "crowding": True, "effort": True, "log_likelihood": False
    }  # fmt: skip


def test_ranks_are_uniform_where_the_data_tell_nothing():
    """With one action the posterior is the prior; equal log likelihoods are ranked at random."""

    def idle(x):
        return pyro.sample("idle", dist.Normal(0.0, 1.0)) * x.density

    def prior(model, *, random_seed):
        return tree(idle=np.random.default_rng(random_seed).standard_normal(200))

    game = lone()
    model = mfg.TrajectoryModel(game, idle, played(game, idle, {"idle": 0.0}, 3, 1))
    found = sbc(model, panels=80, fit=prior, random_seed=4, progressbar=False)
    assert found.calibrated
    assert found.ranks["log_likelihood"].nunique() == 80


def test_nuts_is_calibrated_by_default(coin):
    """NUTS draws, with no fit named, stay within the bands."""
    found = sbc(coin, panels=10, random_seed=5, progressbar=False)
    assert found.calibrated, repr(found)


def test_the_band_is_left_by_one_in_a_hundred():
    """Of 400 sets of uniform numbers about 1 % leave the band; p is Kolmogorov and Smirnov's."""
    ranks = pd.DataFrame(np.random.default_rng(6).random((60, 400)))
    none = pd.Series(dtype=object)
    table = Calibration(ranks, ranks, none, none, "known", 6).table
    left = (~table["inside"]).sum()
    assert scipy.stats.binom.cdf(left, 400, 0.01) > 1e-4
    assert scipy.stats.binom.sf(left - 1, 400, 0.01) > 1e-4
    assert table.loc[7, "p"] == scipy.stats.kstest(ranks[7], "uniform").pvalue
    # uniform ranks have a mean of 1/2 and a mean square about it of 1/12
    assert abs(table["bias"].std() - 1) < 5 / np.sqrt(2 * 400)
    assert abs(table["spread"].std() - 1) < 5 / np.sqrt(2 * 400)


def test_draws_that_depend_on_each_other_are_thinned(coin):
    """Of 1,000 draws of an AR(1) chain about n (1 - r) / (1 + r) are kept."""

    def slow(model, *, random_seed):
        noise = np.random.default_rng(random_seed).standard_normal(1000)
        return tree(odds=scipy.signal.lfilter([1.0], [1.0, -0.9], noise))

    found = sbc(coin, panels=20, fit=slow, random_seed=7, progressbar=False)
    expected = 1000 * 0.1 / 1.9
    assert 0.7 * expected < found.kept.mean() < 1.4 * expected


def test_the_panels_are_those_of_the_world(roads_model):
    """Known, starts and flow stay; else as many agents in equilibrium, by the fits' treatment."""
    seen = []

    def look(model, *, random_seed):
        seen.append(model)
        return prior_of_roads(model, random_seed=random_seed)

    flow = sbc(roads_model, panels=10, fit=look, random_seed=8, progressbar=False)
    own = sbc(
        roads_model, panels=10, fit=look, mean_field="empirical", random_seed=8, progressbar=False
    )
    solved = sbc(
        roads_model, panels=10, fit=look, mean_field="equilibrium", random_seed=8, progressbar=False
    )
    assert [one.mean_field for one in (flow, own, solved)] == ["known", "empirical", "equilibrium"]
    assert len(seen) == 30
    pd.testing.assert_frame_equal(flow.truths, own.truths)  # one seed, the same truths
    first = roads_model.panel.offsets[:-1]
    for model in seen[:10]:
        assert not model.flow_is_empirical
        np.testing.assert_array_equal(model.mean_field, roads_model.mean_field)
        np.testing.assert_array_equal(model.panel.state[first], roads_model.panel.state[first])
    assert len({model.panel.action.tobytes() for model in seen[:20]}) == 20
    for plug_in, coupled in zip(seen[10:20], seen[20:], strict=True):
        np.testing.assert_array_equal(plug_in.panel.action, coupled.panel.action)
        assert coupled.coupled
    for model in seen[10:20]:
        assert model.flow_is_empirical
        assert model.panel.n_trajectories == roads_model.panel.n_trajectories


def test_rounds_that_fail_are_counted(roads_model, monkeypatch):
    """Fits that raise, and equilibria that are not found, are left out and named."""

    def picky(model, *, random_seed):
        if random_seed % 2:
            raise ValueError("odd seeds are not for me")
        return prior_of_roads(model, random_seed=random_seed)

    found = sbc(roads_model, panels=20, fit=picky, random_seed=9, progressbar=False)
    assert 0 < len(found.failures) == 20 - len(found.ranks)
    assert set(found.failures) == {"the fit raised ValueError: odd seeds are not for me"}
    assert f"not used: {len(found.failures)} x the fit raised" in repr(found)
    assert set(found.failures.index).isdisjoint(found.ranks.index)

    def solve(game, reward, *, parameters, throw):
        if parameters["crowding"] > 0:
            raise mfg.exceptions.ConvergenceError("it turns in circles")
        return mfg.solve_equilibrium(game, reward, parameters=parameters, throw=throw)

    monkeypatch.setattr("mfgppl.calibration.worlds.solve_equilibrium", solve)
    found = sbc(
        roads_model, panels=10, fit=prior_of_roads, mean_field="empirical", random_seed=9,
        progressbar=False,
    )  # fmt: skip
    assert (found.truths["crowding"] <= 0).all()
    assert set(found.failures) == {"the equilibrium was not found"}


def test_too_few_draws_leave_no_round(coin):
    """A fit of ten draws ranks nothing."""

    def few(model, *, random_seed):
        return tree(odds=np.random.default_rng(random_seed).standard_normal(10))

    with pytest.raises(RuntimeError, match="0 of 10 rounds could be used"):
        sbc(coin, panels=10, fit=few, random_seed=1, progressbar=False)


def test_rounds_are_run_elsewhere_and_in_any_order(roads_model, monkeypatch):
    """Each by a pickled copy of the task, the last round first: the ranks are the same."""
    here = sbc(roads_model, panels=10, fit=prior_of_roads, random_seed=1, progressbar=False)

    def elsewhere(task, n, *, random_seed, **options):
        pickled = cloudpickle.dumps(task)
        seeds = seeds_of(random_seed, n)
        return [cloudpickle.loads(pickled)(seed) for seed in reversed(seeds)][::-1]

    monkeypatch.setattr(room, "replicate", elsewhere)
    there = sbc(roads_model, panels=10, fit=prior_of_roads, random_seed=1, progressbar=False)
    pd.testing.assert_frame_equal(here.ranks, there.ranks)


@pytest.mark.slow
def test_results_do_not_depend_on_the_workers(roads_model):
    """Two processes find what one does."""
    one, two = (
        sbc(roads_model, panels=10, fit=quick_laplace, random_seed=1, n_jobs=n, progressbar=False)
        for n in (1, 2)
    )
    pd.testing.assert_frame_equal(one.ranks, two.ranks)


def test_the_figure_draws_the_band_of_the_table(coin):
    """One panel per quantity, whose band is the table's."""
    found = sbc(coin, panels=40, fit=exact, random_seed=1, progressbar=False)
    figure = plot_ranks(found)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title().split("\n")[0] for axis in axes] == ["odds", "log_likelihood"]
    corners = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    rank = found.band.index.to_numpy()
    assert corners.max() == pytest.approx((found.band["upper"] - rank).max())
    assert corners.min() == pytest.approx((found.band["lower"] - rank).min())


def energy():
    game = two_roads()
    panel = played(game, avoid_crowds, {"crowding": 1.0, "effort": 0.4}, 20, 1)
    return mfg.TrajectoryModel(game, avoid_crowds, panel, likelihood="energy")


def test_a_coupled_model_solves_for_its_flow_by_default(roads_model):
    """A known flow it does not have."""
    coupled = roads_model.along("equilibrium")
    found = sbc(coupled, panels=10, fit=prior_of_roads, random_seed=8, progressbar=False)
    assert found.mean_field == "equilibrium"
    with pytest.raises(ValueError, match="coupled model solves for its own; use 'empirical'"):
        sbc(coupled, fit=prior_of_roads, mean_field="known")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, TypeError, "`model` must be a TrajectoryModel"),
        ({"panels": 5}, ValueError, "`panels` must be at least 10"),
        ({"mean_field": "know"}, ValueError, "`mean_field` must be one of .*did you mean `known`"),
        ({"fit": "nuts"}, TypeError, "`fit` must take a model and return draws; got str"),
        ({"fit": lambda model, random_seed: 3}, TypeError, "`fit` must return draws"),
        ({"world": "flow"}, TypeError, "did you mean `mean_field`"),
        ({"random_seed": -1}, ValueError, "`random_seed` must be at least 0"),
        ({"seed": 1}, TypeError, "did you mean `random_seed`"),
        ({"model": energy}, ValueError, "'known' draws .* use mean_field='empirical'"),
    ],
)
def test_wrong_inputs_say_what_is_wrong(change, error, words, roads_model):
    """Messages name the argument and what came."""
    arguments = {"model": roads_model, "panels": 10, "random_seed": 1, "progressbar": False}
    arguments |= change
    if arguments["model"] is energy:
        arguments["model"] = energy()
    with pytest.raises(error, match=words):
        sbc(**arguments)
