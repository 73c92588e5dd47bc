"""Likelihoods that are summed over the workers of a Dask client."""

import functools
import pickle

import joblib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from kinds_world import GAME, POOLED, panel, program

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.likelihood.division import parts_of

cloudpickle, distributed = (pytest.importorskip(name) for name in ("cloudpickle", "distributed"))

ROUNDING = 1e-10  # relative, of sums in another order
WEIGHTS = [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0)]


@pytest.fixture(scope="module")
def client():
    """A client of two workers, one of them in a process of its own; both are sent pickles."""
    one = {"nthreads": 1}
    cluster = distributed.SpecCluster(
        scheduler={"cls": distributed.Scheduler, "options": {"dashboard": False}},
        workers={
            "away": {"cls": distributed.Nanny, "options": one},
            "here": {"cls": distributed.Worker, "options": one},
        },
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def built(client=None):
    return mfg.TrajectoryModel(GAME, program(2), panel(1, n=60), mean_field=POOLED, client=client)


kinds = functools.cache(built)


def regions():
    """Return a game of five types, each with moves of its own, its program, and a panel."""
    names = [f"r{k}" for k in range(5)]
    ways = np.random.default_rng(3).dirichlet(np.ones(3), size=(5, 3, 2))
    game = mfg.MeanFieldGame(
        states={"level": range(3)},
        actions=["keep", "move"],
        types={"region": names},
        meets="region",
        horizon=4,
        transition=dict(zip(names, ways, strict=True)),
        initial=np.full(15, 1 / 15),
    )

    def reward(x):
        taste = pyro.sample("taste", x.region.each(dist.Normal(0.0, 1.0)))
        cost = pyro.sample("cost", dist.HalfNormal(1.0))
        return taste[x.region.codes] * x.level - cost * (x.action == "move")

    truth = {"taste": np.linspace(-0.5, 0.5, 5), "cost": 0.5}
    played = mfg.solve_equilibrium(game, reward, parameters=truth, throw=True).value
    drawn = mfg.simulate(game, played.policy, played.mean_field, n_agents=400, random_seed=2)
    return game, reward, drawn, played.mean_field


def by_cells(client=None):
    game, reward, drawn, flow = regions()
    return mfg.TrajectoryModel(game, reward, drawn, mean_field=flow, client=client)


def assert_same_density(one, other):
    ours, theirs = density_of(one), density_of(other)
    for prior, jacobian in WEIGHTS:
        here = ours.evaluator(prior=prior, jacobian=jacobian)
        there = theirs.evaluator(prior=prior, jacobian=jacobian)
        for seed in range(3):
            theta = np.random.default_rng(seed).normal(size=ours.n_dim)
            value, gradient = here(theta)
            value, gradient = value, gradient.copy()
            found, slope = there(theta)
            assert abs(found - value) <= ROUNDING * abs(value)
            assert np.abs(slope - gradient).max() <= ROUNDING * np.abs(gradient).max()


@pytest.mark.parametrize("build", [kinds, by_cells])
def test_value_and_gradient_are_those_of_one_process(client, build):
    assert_same_density(build(), build(client))


def test_a_kind_that_is_known_of_some_agents_travels_with_them(client):
    def known(client=None):
        rows = panel(1, n=60).to_frame(agent="firm", time="month", action="move")
        rows["seen"] = np.where(rows["firm"].astype(int) % 5 == 0, "1", "unknown")
        seen = mfg.Trajectories.from_frame(
            rows, agent="firm", time="month", state=["price"], action="move", groups=["seen"]
        )

        def firm(x):
            menu = pyro.sample("menu", dist.HalfNormal(2.0).expand([2]).to_event(1))
            with x.agents(known="seen"):
                kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.6, 0.4])))
            return 0.3 * x.price - menu[kind] * (x.action != "none")

        return mfg.TrajectoryModel(GAME, firm, seen, mean_field=POOLED, client=client)

    assert_same_density(known(), known(client))


@pytest.mark.parametrize("build", [kinds, by_cells])
@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_parts_add_up_whatever_their_number(build, n):
    model = build()
    density = density_of(model)
    core = density.rewards(density.constrained(density.program.draw(0)[None]))[0]
    core = np.ascontiguousarray(core)
    value, gradient = model.law.evaluator()(core)
    parts = [law.evaluator()(core) for law in parts_of(model.law, n)]
    assert len(parts) <= n
    assert sum(p[0] for p in parts) == pytest.approx(value, rel=ROUNDING)
    np.testing.assert_allclose(sum(p[1] for p in parts), gradient, atol=ROUNDING * abs(value))


def test_estimates_are_those_of_one_process(client):
    ours, theirs = (mfg.mle(m, progressbar=False) for m in (kinds(), kinds(client)))
    np.testing.assert_allclose(theirs.params, ours.params, atol=1e-6)
    np.testing.assert_allclose(theirs.information, ours.information, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("sampler", ["nutpie", "pyro"])
def test_chains_ask_the_same_workers(client, sampler):
    short = {"draws": 4, "tune": 4, "chains": 2, "max_treedepth": 2, "random_seed": 1}
    options = short | {"sampler": sampler, "progressbar": False, "cores": 2}
    ours, theirs = (mfg.nuts(m, **options)["posterior"] for m in (kinds(), kinds(client)))
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5)


def test_many_fits_run_on_the_same_client(client):
    many = {"replications": 2, "random_seed": 1, "progressbar": False}
    here = mfg.bootstrap(kinds(), **many)
    with joblib.parallel_config(backend="dask", client=client):
        there = mfg.bootstrap(kinds(client), **many)
    np.testing.assert_allclose(there, here, atol=1e-6)


def test_a_model_of_another_panel_or_flow_keeps_the_client_and_a_copy_elsewhere_has_none(client):
    model = kinds(client)
    other = model.with_panel(panel(2, n=40))
    assert model.along(np.full_like(POOLED, 0.25)).client is client
    plain = mfg.TrajectoryModel(GAME, program(2), panel(2, n=40), mean_field=POOLED)
    assert_same_density(plain, other)
    assert pickle.loads(cloudpickle.dumps(model)).client is None


def test_two_clients_in_one_process_call_their_own_workers(client):
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False
    )
    with cluster, distributed.Client(cluster) as newer:
        assert_same_density(kinds(), built(client))  # laid out while the newer is the current one
        assert_same_density(kinds(), built(newer))


def test_a_worker_that_is_gone_is_named_with_the_remedy():
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False
    )
    with cluster, distributed.Client(cluster) as own:
        left = kinds(own)
        evaluate = density_of(left).evaluator()
        theta = np.zeros(density_of(kinds()).n_dim)
        assert np.isfinite(evaluate(theta)[0])
    with pytest.raises(ConnectionError, match="Build the model again"):
        evaluate(theta)
    with pytest.raises(ValueError, match="must be connected"):
        left.with_panel(panel(2, n=40))


def sampled(x):
    with x.agents(sampled=True):
        taste = pyro.sample("taste", dist.Normal(0.0, 1.0))
    return taste * x.price


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"reward": program(1)}, "one cell and one kind"),
        (lambda a: a | {"mean_field": "equilibrium"}, "no sum over parts"),
        (lambda a: a | {"reward": program(1), "likelihood": "energy"}, "EnergyLikelihood"),
        (lambda a: a | {"reward": sampled}, "a parameter of its own"),
    ],
)
def test_what_is_no_sum_over_parts_is_refused(client, change, message):
    given = {"game": GAME, "reward": program(2), "panel": panel(1, n=60), "mean_field": POOLED}
    with pytest.raises(ValueError, match=message):
        mfg.TrajectoryModel(**change(given), client=client)


def test_what_is_no_client_is_refused():
    with pytest.raises(TypeError, match=r"must be a distributed\.Client; got str"):
        kinds("tcp://scheduler:8786")
