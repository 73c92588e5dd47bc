"""The efficient pseudo-likelihood: from the plug-in fit to the coupled estimate."""

import functools
import importlib

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
from games import ROADS_TRUTH, avoid_crowds, epidemic, fear, played, two_roads

import mfgppl as mfg
from mfgppl.density.at_equilibrium import compiled_parameters
from mfgppl.density.of_model import density_of
from mfgppl.density.sizes import effects_of
from mfgppl.density.tangent import AlongTangent, Climbed
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.flows.efficient import efficient_pseudo_likelihood
from mfgppl.models import (
    beach_bar,
    market,
    multiple_equilibria,
    stationary_repair,
    treasure_hunting,
)

SAME_HEIGHT, SAME_PARAMETERS = 1e-6, 1e-4  # nats, reward units
EPIDEMIC_TRUTH = {"illness": 0.8, "distance": 0.3}


def branching(x):
    """Return the reward of `two_roads` with a branch on a value, which cannot be recorded."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    weight = crowding if float(crowding.detach()) > -100 else -crowding
    return -weight * x.density - effort * (x.action == "turn")


CASES = {
    "market": (market.game().replace(horizon=5, features={}), market.reward, market.TRUTH),
    "epidemic": (epidemic(), fear, EPIDEMIC_TRUTH),
    "discounted": (two_roads(discount=0.8, temperature=0.6), avoid_crowds, ROADS_TRUTH),
    "joint": (
        treasure_hunting.game().replace(horizon=4), treasure_hunting.reward, treasure_hunting.TRUTH,
    ),
    "stationary": (stationary_repair.game(), stationary_repair.reward, stationary_repair.TRUTH),
    "branches in Python": (two_roads(), branching, ROADS_TRUTH),
}  # fmt: skip
EAGER = ("stationary", "branches in Python")
EAGERLY = pytest.mark.filterwarnings("ignore::mfgppl.exceptions.CompilationWarning")


@functools.cache
def case(name, n_agents=60, seed=1):
    game, reward, truth = CASES[name]
    return mfg.TrajectoryModel(game, reward, played(game, reward, truth, n_agents, seed))


@functools.cache
def fitted(name, n_agents=60, seed=1):
    return efficient_pseudo_likelihood(case(name, n_agents, seed))


def tangent(model, seed=1):
    """Return the likelihood along the tangent at the counted flow, and parameters near by."""
    coupled = model.along("equilibrium")
    program, compiled = compiled_parameters(coupled)
    theta = 0.3 * np.random.default_rng(seed).standard_normal((2, program.n_dim))
    effects = effects_of(density_of(model), theta[0])
    world = Climbed(coupled, program, compiled, effects, theta[0])
    flow = model.mean_field.numpy().reshape(model.game.shape[0], -1)
    return AlongTangent(world, theta[0], flow, np.ones(program.n_dim)), theta[1]


def meets(found, fit):
    """Whether an estimate is the coupled one."""
    known = fit.bse.notna()
    apart = (found.params - fit.params)[known].abs().max()
    return (
        found.converged
        and abs(found.estimate.llf - fit.llf) < SAME_HEIGHT
        and apart < SAME_PARAMETERS
    )


# the likelihood along a tangent


@EAGERLY
@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_that_of_finite_differences(name):
    height, theta = tangent(case(name))
    assert height.world.recorded == (name not in EAGER)
    gradient = height.value_and_gradient(theta)[1]
    for k, step in enumerate(1e-5 * np.eye(len(theta))):
        up, down = (height.value_and_gradient(theta + s * step)[0] for s in (1, -1))
        assert gradient[k] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name not in EAGER])
def test_kernels_give_what_autograd_gives(name):
    height, theta = tangent(case(name))
    values = height.world.values(theta)
    (value, slope), (other, known) = height.by_kernels(values), height.by_autograd(values)
    assert value == pytest.approx(other, rel=1e-10)
    np.testing.assert_allclose(slope, known, rtol=1e-7, atol=1e-7)


def test_at_an_equilibrium_it_has_the_coupled_gradient():
    """The tangent moves with the parameters as the equilibrium does."""
    model = case("epidemic")
    coupled = model.along("equilibrium")
    density = density_of(coupled)
    theta = density.anchor.theta
    program, compiled = compiled_parameters(coupled)
    effects = effects_of(density, theta)
    world = Climbed(coupled, program, compiled, effects, theta)
    height = AlongTangent(world, theta, density.anchor.flow, np.ones(len(theta)))
    value, gradient = height.value_and_gradient(theta)
    known, slope = density.evaluator(prior=0.0, jacobian=0.0)(theta)
    assert value == pytest.approx(known, abs=1e-7)
    np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-6)
    assert height.residual < 1e-11


def test_large_games_are_answered_without_factors(monkeypatch):
    """Where `I - F_mu` is too large to be factored, iterations solve with it."""
    height, theta = tangent(case("epidemic"))
    known, slope = height.value_and_gradient(theta)
    monkeypatch.setattr("mfgppl.equilibrium.linearisation.LARGEST_SYSTEM", 3)
    monkeypatch.setattr("mfgppl.equilibrium.linearisation.SMALL_SYSTEM", 3)
    large, _ = tangent(case("epidemic"))
    value, gradient = large.value_and_gradient(theta)
    assert value == pytest.approx(known, rel=1e-10)
    np.testing.assert_allclose(gradient, slope, rtol=1e-7, atol=1e-7)


# where the sequence leads


@EAGERLY
@pytest.mark.parametrize(
    ("name", "n_agents", "seed"),
    [
        ("market", 300, 2),
        ("epidemic", 60, 1),
        pytest.param("joint", 60, 1, marks=pytest.mark.slow),
        pytest.param("branches in Python", 400, 3, marks=pytest.mark.slow),
    ],
)
def test_it_ends_at_the_coupled_maximum(name, n_agents, seed):
    found = fitted(name, n_agents, seed)
    fit = mfg.mle(case(name, n_agents, seed).along("equilibrium"), progressbar=False)
    assert meets(found, fit)
    assert found.residual < 1e-11
    np.testing.assert_allclose(found.estimate.bse, fit.bse, rtol=1e-4)
    for kind in ("opg", "cluster"):
        errors = (f.standard_errors(kind) for f in (found.estimate, fit))
        np.testing.assert_allclose(*errors, rtol=1e-4)


GALLERY = {
    "beach_bar": 300, "crowd_motion": 300, "equilibrium_price": 100, "invest": 100,
    "lasry_lions": 300, "left_right": 100, "linear_quadratic": 100, "malware": 300, "market": 300,
    "multiple_equilibria": 100, "random_game": 100, "rock_paper_scissors": 100, "sir": 100,
    "sis": 100, "stationary_repair": 30, "traffic_routing": 200, "treasure_hunting": 100,
}  # fmt: skip


def of_the_gallery(name, n_agents):
    module = importlib.import_module(f"mfgppl.models.{name}")
    panel = played(module.game(), module.reward, module.TRUTH, n_agents, 1)
    return mfg.TrajectoryModel(module.game(), module.reward, panel)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of several equilibria, of what is not known
@pytest.mark.parametrize("name", GALLERY)
def test_it_ends_at_the_coupled_maximum_of_each_game_of_the_gallery(name):
    model = of_the_gallery(name, GALLERY[name])
    found = efficient_pseudo_likelihood(model)
    assert meets(found, mfg.mle(model.along("equilibrium"), progressbar=False))


@pytest.mark.slow
def test_it_converges_where_a_search_from_the_plug_in_mode_does_not():
    """Along the counted flow, animals seem to be drawn to crowds; that game has no equilibrium.

    Of panels as small as this one some have no step that helps, and say so.
    """
    module = importlib.import_module("mfgppl.models.predator_prey")
    panel = played(module.game(), module.reward, module.TRUTH, 300, 2)
    found = efficient_pseudo_likelihood(mfg.TrajectoryModel(module.game(), module.reward, panel))
    assert found.converged
    truth = np.array(list(module.TRUTH.values()))
    assert ((found.params - truth).abs() < 5 * found.estimate.bse).all()


def test_it_converges_in_a_congested_game():
    """The counted flow hides half of the dislike of crowds, and the nested iteration cycles."""
    found = efficient_pseudo_likelihood(of_the_gallery("lasry_lions", 300))
    assert found.converged
    assert found.path["change"].iloc[-1] <= 1e-8
    assert found.params["crowding"] == pytest.approx(4.0, abs=2 * found.estimate.bse["crowding"])


@pytest.mark.slow
def test_the_nested_iteration_cycles_there():
    model = of_the_gallery("lasry_lions", 300)
    plug_in = mfg.mle(model, svi_steps=0, progressbar=False)
    with pytest.warns(ConvergenceWarning, match=r"mfg\.flows\.efficient_pseudo_likelihood"):
        nested = mfg.flows.nested_pseudo_likelihood(model, init=plug_in)
    assert not nested.converged


@pytest.mark.slow
def test_with_several_equilibria_the_first_flow_decides():
    """Two panels of one game, each in another equilibrium: each is explained by its own."""
    game, reward = multiple_equilibria.game(), multiple_equilibria.reward
    known = mfg.equilibrium.find_equilibria(
        game, reward, parameters=multiple_equilibria.TRUTH
    ).solutions
    flows = []
    for end in [s.value for s in known if s.converged][:2]:
        panel = mfg.simulate(game, end.policy, end.mean_field, n_agents=200, random_seed=2)
        with pytest.warns(ConvergenceWarning, match="several equilibria at the estimate"):
            found = efficient_pseudo_likelihood(mfg.TrajectoryModel(game, reward, panel))
        assert found.converged
        np.testing.assert_allclose(found.mean_field, end.mean_field, atol=0.1)
        flows.append(found.mean_field)
    assert (flows[0] - flows[1]).abs().max() > 0.2


def test_the_record_shows_the_path():
    found = fitted("epidemic")
    path = found.path
    assert list(path) == ["change", "residual", "llf", "shortened", *EPIDEMIC_TRUTH]
    assert path.index.tolist() == list(range(1, len(path) + 1))
    assert not path["shortened"].any()
    assert path["llf"].iloc[-1] == pytest.approx(found.estimate.llf, abs=SAME_HEIGHT)
    assert found.estimate.kind == "efficient pseudo-likelihood"
    assert "converged in" in repr(found)
    assert "the flow moves with the parameters" in repr(found)
    assert "equilibrium within" in found.estimate.reason


def test_a_few_steps_take_their_flow_as_known():
    """Its information is that of the likelihood along the flow reached."""
    model = case("market", 300, 2)
    with pytest.warns(ConvergenceWarning, match="too few steps: .* raise `max_steps`"):
        found = efficient_pseudo_likelihood(model, max_steps=1)
    assert not found.converged
    assert "the flow is taken as known" in repr(found)
    assert len(found.path) == 1
    np.testing.assert_allclose(found.params, found.path[list(market.TRUTH)].iloc[0])
    along = density_of(model.along(found.mean_field))
    expected = -along.second_derivatives(found.estimate.theta, prior=0.0, jacobian=0.0)
    np.testing.assert_allclose(found.estimate.information, expected, rtol=1e-6)
    assert found.estimate.scores.shape == (300, 3)


def test_the_first_flow_and_the_start_may_be_given():
    model = case("market", 300, 2)
    start = np.full((5, 8), 1 / 8)
    found = efficient_pseudo_likelihood(
        model.along("equilibrium"), mean_field=start, init=market.TRUTH
    )
    assert found.converged
    expected = fitted("market", 300, 2).params
    np.testing.assert_allclose(found.params, expected, atol=SAME_PARAMETERS)


def test_steps_beyond_what_a_reward_is_defined_for_are_shortened():
    """It has the logarithm of a share, and the linear answer of few agents' flow is below 0."""
    game = beach_bar.game().replace(horizon=6)
    panel = played(game, beach_bar.reward, beach_bar.TRUTH, 60, 2)
    model = mfg.TrajectoryModel(game, beach_bar.reward, panel)
    found = efficient_pseudo_likelihood(model)
    assert found.path["shortened"].iloc[0]
    assert "steps were shortened" in found.reason
    assert found.converged


def test_a_likelihood_that_is_nearly_flat_is_gone_around():
    """A hundred drivers hardly know their dislike of crowds: the steps end nowhere, and say so."""
    panel = played(two_roads(), avoid_crowds, ROADS_TRUTH, 100, 1)
    with pytest.warns(ConvergenceWarning, match="no fixed point was reached: cycle"):
        found = efficient_pseudo_likelihood(mfg.TrajectoryModel(two_roads(), avoid_crowds, panel))
    assert not found.converged


# the door


def test_wrong_inputs_are_refused():
    model = case("market")
    with pytest.raises(TypeError, match="`model` must be a TrajectoryModel; got int"):
        efficient_pseudo_likelihood(3)
    with pytest.raises(ValueError, match="`tolerance`"):
        efficient_pseudo_likelihood(model, tolerance=0.1)
    with pytest.raises(ValueError, match="`max_steps`"):
        efficient_pseudo_likelihood(model, max_steps=0)
    with pytest.raises(ValueError, match="`mean_field` must have shape"):
        efficient_pseudo_likelihood(model, mean_field=np.ones((2, 2)))
    energy = mfg.TrajectoryModel(model.game, market.reward, model.panel, likelihood="energy")
    with pytest.raises(ValueError, match="needs likelihood='causal'"):
        efficient_pseudo_likelihood(energy)


def test_sparse_dynamics_that_the_crowd_moves_are_refused():
    moving = epidemic()

    def sparse(mean_field, time):
        return scipy.sparse.csr_array(moving.transition(mean_field, time).numpy().reshape(4, 2))

    model = mfg.TrajectoryModel(epidemic(transition=sparse), fear, case("epidemic").panel)
    with pytest.raises(ValueError, match="dense tensors computed in torch"):
        efficient_pseudo_likelihood(model)
