"""The coupled likelihood: the flow is the equilibrium under the reward itself."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from games import (
    ROADS_TRUTH,
    ROUNDING,
    STANDARD_ERRORS,
    as_frame,
    avoid_crowds,
    epidemic,
    fear,
    played,
    two_roads,
)

import mfgppl as mfg
from mfgppl.density.anchor import TOLERANCE
from mfgppl.density.of_model import density_of, redrawn
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning
from mfgppl.models import malware, market, multiple_equilibria, stationary_repair, treasure_hunting

SOLVER = 1e-7  # a residual of 1e-11, some hundred nats, and what `(I - F_mu)^-1` makes of it
EPIDEMIC_TRUTH = {"illness": 0.8, "distance": 0.3}


def branching(x):
    """Return the reward of `two_roads` with a branch on a value, which cannot be recorded."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    weight = crowding if float(crowding.detach()) > -100 else -crowding
    return -weight * x.density - effort * (x.action == "turn")


CASES = {
    "two roads": (two_roads(), avoid_crowds, ROADS_TRUTH),
    "epidemic": (epidemic(), fear, EPIDEMIC_TRUTH),
    "discounted": (two_roads(discount=0.8, temperature=0.6), avoid_crowds, ROADS_TRUTH),
    "market": (market.game().replace(horizon=5, features={}), market.reward, market.TRUTH),
    "malware": (malware.game().replace(horizon=5), malware.reward, malware.TRUTH),
    "joint": (
        treasure_hunting.game().replace(horizon=4), treasure_hunting.reward, treasure_hunting.TRUTH,
    ),
    "stationary": (stationary_repair.game(), stationary_repair.reward, stationary_repair.TRUTH),
    "branches in Python": (two_roads(), branching, ROADS_TRUTH),
}  # fmt: skip
EAGER = ("stationary", "branches in Python")


@functools.cache
def coupled(name, n_agents=60, seed=1):
    game, reward, truth = CASES[name]
    panel = played(game, reward, truth, n_agents, seed)
    return mfg.TrajectoryModel(game, reward, panel, mean_field="equilibrium")


def points(density, n, spread=0.2):
    """Return unconstrained points around the anchor."""
    rng = np.random.default_rng(3)
    return density.anchor.theta + spread * rng.standard_normal((n, density.n_dim))


def by_hand(model, tables, reward, temperature=1.0):
    """Return the log likelihood of a panel by loops over agents, the flow by plain iteration.

    `tables(mu, t)` and `reward(mu, t)` are numpy functions of the shares at one time.
    """
    T, S, A = model.game.shape
    flow = np.tile(model.game.initial.numpy(), (T, 1))
    for _ in range(3000):
        values, policy = np.zeros(S), np.zeros((T, S, A))
        for t in range(T - 1, -1, -1):
            q = reward(flow[t], t) + (tables(flow[t], t) @ values if t < T - 1 else 0.0)
            values = temperature * np.log(np.exp(q / temperature).sum(-1))
            policy[t] = np.exp((q - values[:, None]) / temperature)
        made = [model.game.initial.numpy()]
        for t in range(T - 1):
            made.append(np.einsum("s,sa,sax->x", made[t], policy[t], tables(flow[t], t)))
        change = np.array(made) - flow
        flow = flow + 0.5 * change
        if np.abs(change).max() < 1e-14:
            break
    total, panel = 0.0, model.panel
    for j in range(panel.n_trajectories):
        rows = slice(panel.offsets[j], panel.offsets[j + 1])
        t, s, a = panel.time[rows], panel.state[rows], panel.action[rows]
        for k in np.flatnonzero(a >= 0):
            total += np.log(policy[t[k], s[k], a[k]])
            if model.game.crowd_moves_dynamics and k + 1 < len(t) and t[k] < T - 1:
                total += np.log(tables(flow[t[k]], t[k])[s[k], a[k], s[k + 1]])
    return total


def test_it_is_the_sum_over_agents_along_the_equilibrium():
    """Two games by loops that share nothing with the package's sweeps or solvers."""
    model = coupled("two roads")
    tables = model.game.transition.numpy()

    def costs(mu, t):
        return -1.2 * mu[:, None] - 0.5 * np.array([[0.0, 1.0]])

    expected = by_hand(model, lambda mu, t: tables, costs)
    found = density_of(model).heights(np.array([[1.2, 0.5]]))[0]
    assert found == pytest.approx(expected, abs=SOLVER)


def test_moves_that_the_crowd_drives_are_in_it():
    """They depend on the reward through the flow: leaving them out would lose what they show."""
    model = coupled("epidemic")

    def tables(mu, t):
        return model.game.transition(torch.as_tensor(mu), t).numpy()

    def costs(mu, t):
        return np.array([[0.0, -0.4], [-0.9, -1.3]])

    expected = by_hand(model, tables, costs)
    values = np.array([[0.9, 0.4]])
    assert density_of(model).heights(values)[0] == pytest.approx(expected, abs=SOLVER)
    along = mfg.solve_equilibrium(
        model.game, fear, parameters={"illness": 0.9, "distance": 0.4}
    ).value
    fixed = model.with_panel(model.panel, mean_field=along.mean_field)
    assert abs(density_of(fixed).heights(values)[0] - expected) > 1.0


@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_that_of_finite_differences(name):
    model = coupled(name)
    if name == "branches in Python":
        with pytest.warns(mfg.exceptions.CompilationWarning):
            density = density_of(model)
    else:
        density = density_of(model)
    assert density.path == ("eager" if name in EAGER else "coupled")
    for prior, theta in zip((0.0, 1.0), points(density, 2), strict=True):
        evaluate = density.evaluator(prior=prior, jacobian=prior)
        gradient = evaluate(theta)[1].copy()
        for k, step in enumerate(1e-5 * np.eye(len(theta))):
            slope = (evaluate(theta + step)[0] - evaluate(theta - step)[0]) / 2e-5
            assert gradient[k] == pytest.approx(slope, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", ["two roads", "epidemic", "joint", "stationary"])
def test_the_pyro_model_has_the_same_density(name):
    model = coupled(name)
    density = density_of(model)
    theta = points(density, 1)[0]
    values = density.constrained(theta[None])[0]
    data = density.program.by_site(torch.from_numpy(values.copy()))
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data=data)).get_trace()
    trace.compute_log_prob()
    total = sum(float(site["log_prob_sum"]) for site in trace.nodes.values() if "fn" in site)
    expected = density.evaluator(prior=1.0, jacobian=0.0)(theta)[0]
    assert total == pytest.approx(expected, abs=SOLVER)


def test_pyro_differentiates_it():
    """Autograd through the Pyro model gives the compiled gradient."""
    model = coupled("epidemic")
    values = {k: torch.tensor(v, dtype=torch.float64) for k, v in EPIDEMIC_TRUTH.items()}
    for value in values.values():
        value.requires_grad_(True)
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data=values)).get_trace()
    trace.compute_log_prob()
    total = trace.nodes["actions"]["log_prob_sum"] + trace.nodes["moves"]["log_prob_sum"]
    slopes = [float(s) for s in torch.autograd.grad(total, list(values.values()))]
    density = density_of(model)
    theta = np.array(list(EPIDEMIC_TRUTH.values()))  # both priors are on the whole line
    np.testing.assert_allclose(density.evaluator(prior=0, jacobian=0)(theta)[1], slopes, rtol=1e-7)


def test_deterministics_are_those_along_the_equilibrium():
    def noting(x):
        reward = avoid_crowds(x)
        pyro.deterministic("left", x.density[:, 0, 0])
        return reward

    panel = coupled("two roads").panel
    model = mfg.TrajectoryModel(two_roads(), noting, panel, mean_field="equilibrium")
    density = density_of(model)
    theta = points(density, 3)
    noted = density.record(theta)[1]["left"]
    for row, values in zip(noted, density.constrained(theta), strict=True):
        found = mfg.solve_equilibrium(
            two_roads(), noting, parameters=dict(zip(model.parameters, values, strict=True))
        )
        np.testing.assert_allclose(row, found.value.mean_field[:, 0].numpy(), atol=1e-9)
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data={
        k: torch.tensor(v, dtype=torch.float64) for k, v in ROADS_TRUTH.items()
    })).get_trace()  # fmt: skip
    world = mfg.solve_equilibrium(two_roads(), noting, parameters=ROADS_TRUTH).value
    np.testing.assert_allclose(trace.nodes["left"]["value"], world.mean_field[:, 0], atol=1e-9)


def test_without_a_crowd_it_is_the_likelihood_along_any_flow():
    def alone(x):
        return -pyro.sample("effort", dist.Normal(0.0, 1.0)) * (x.action == "turn")

    panel = coupled("two roads").panel
    plug_in = mfg.TrajectoryModel(two_roads(), alone, panel)
    both = plug_in, plug_in.with_panel(panel, mean_field="equilibrium")
    fits = [mfg.mle(model, progressbar=False) for model in both]
    assert fits[1].llf == pytest.approx(fits[0].llf, abs=ROUNDING * abs(fits[0].llf))
    np.testing.assert_allclose(fits[1].params, fits[0].params, rtol=1e-6)
    np.testing.assert_allclose(fits[1].bse, fits[0].bse, rtol=1e-6)


@pytest.mark.parametrize("name", ["two roads", "epidemic", "market"])
def test_second_derivatives_are_the_gradients_differences(name):
    density = density_of(coupled(name))
    theta = points(density, 1)[0]
    evaluate = density.evaluator(prior=1.0, jacobian=1.0)
    found = density.second_derivatives(theta, prior=1.0, jacobian=1.0)
    for k, step in enumerate(1e-4 * np.eye(len(theta))):
        ends = [evaluate(theta + sign * step)[1].copy() for sign in (1, -1)]
        np.testing.assert_allclose(found[k], (ends[0] - ends[1]) / 2e-4, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["two roads", "epidemic", "joint", "stationary"])
def test_scores_are_the_slopes_of_each_trajectory(name):
    model = coupled(name)
    density = density_of(model)
    theta = points(density, 1)[0]
    scores = np.stack([slope.sum(0) for slope in _scores_by_entry(model, density, theta)], axis=1)
    total = density.evaluator(prior=0.0, jacobian=0.0)(theta)[1]
    np.testing.assert_allclose(scores.sum(0), total, rtol=1e-6, atol=1e-6)
    h = 1e-5
    for k, step in enumerate(h * np.eye(len(theta))):
        values = density.constrained(np.stack([theta + step, theta - step]))
        sites = [density.program.by_site(v) for v in values]
        ends = [mfg.log_likelihood(model, v).values for v in sites]
        np.testing.assert_allclose(scores[:, k], (ends[0] - ends[1]) / (2 * h), atol=1e-5)


def _scores_by_entry(model, density, theta):
    """Yield the slopes of what each trajectory adds, by parameter: an array (1, J)."""
    from mfgppl.likelihood.terms import add_up

    terms = model.law.terms(model.panel)
    for slopes in density.table_slopes(theta):
        yield add_up(terms, slopes, model.panel.n_trajectories)[None]


def test_it_is_a_function_of_the_parameters_alone():
    """Whatever was asked before, to the last bit; and in another evaluator."""
    density = density_of(coupled("market"))
    one, other = points(density, 2)
    evaluate = density.evaluator()
    first = evaluate(one)[0]
    evaluate(other)
    assert evaluate(one)[0] == first
    assert density.evaluator()(one)[0] == first


def test_large_games_are_solved_without_factors(monkeypatch):
    """Where `I - F_mu` is too large to be factored, iterations alone reach the same."""
    model = coupled("market")
    plain = density_of(model)
    monkeypatch.setattr("mfgppl.equilibrium.linearisation.LARGEST_SYSTEM", 10)
    monkeypatch.setattr(ResponseMap, "sweeps", lambda *_, **__: None)
    large = density_of(model.with_panel(model.panel))
    assert large.anchor.system is None
    for theta in points(plain, 3):
        value, gradient = large.evaluator()(theta)
        expected = plain.evaluator()(theta)
        assert value == pytest.approx(expected[0], abs=SOLVER)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-6, atol=1e-5)


def test_a_game_solved_before_with_parameters_in_another_order_is_no_slower():
    """A recording is of parameters in a row: named in another order it is another."""
    game, backwards = two_roads(), dict(reversed(list(ROADS_TRUTH.items())))
    panel = played(game, avoid_crowds, backwards, 60, 1)
    model = mfg.TrajectoryModel(game, avoid_crowds, panel, mean_field="equilibrium")
    assert density_of(model).path == "coupled"


@functools.cache
def of_many_agents():
    return mfg.mle(coupled("market", 20_000, 5), progressbar=False)


def test_many_agents_lead_to_the_truth():
    truth, fit = market.TRUTH, of_many_agents()
    z = (fit.params - np.array(list(truth.values()))) / fit.bse
    assert fit.converged
    assert (z.abs() < STANDARD_ERRORS).all()
    ratio = fit.standard_errors("cluster") / fit.bse
    np.testing.assert_allclose(ratio, 1.0, atol=0.05)


def test_it_meets_the_nested_pseudo_likelihood_with_many_agents():
    """Both are consistent; one is efficient, so they differ by less than their standard errors."""
    model, fit = coupled("market", 20_000, 5).along("empirical"), of_many_agents()
    found = mfg.flows.nested_pseudo_likelihood(model, init=market.TRUTH, tolerance=1e-5)
    nested = found.estimate
    assert found.converged
    assert ((nested.params - fit.params).abs() < nested.bse).all()
    assert (fit.bse <= nested.bse * 1.02).all()


def test_a_panel_drawn_again_shares_what_does_not_depend_on_it():
    model = coupled("epidemic")
    panel = played(*CASES["epidemic"], 40, 9)
    anew = mfg.TrajectoryModel(model.game, fear, panel, mean_field="equilibrium")
    values = np.array([[0.8, 0.3], [1.0, 0.5]])
    found = density_of(redrawn(model, panel)).heights(values)
    np.testing.assert_allclose(found, density_of(anew).heights(values), atol=SOLVER)
    assert model.with_panel(panel).flow_kind == "equilibrium"


def test_a_panel_replayed_faces_the_dynamics_that_its_policy_makes():
    """Nobody is ill where everybody keeps their distance, though many were in the panel."""
    model = coupled("epidemic", 400)
    distant = np.zeros(model.game.shape)
    distant[..., 1] = 1.0
    panel = mfg.checks.replay(model, distant, random_seed=1)
    steps, n = panel.transition_counts()
    caught = (steps[:, 1] == 0) & (steps[:, 3] == 1)
    assert n[caught].sum() == 0


# several equilibria, and none


def standards(n_agents=100):
    game, reward = multiple_equilibria.game(), multiple_equilibria.reward
    panel = played(game, reward, multiple_equilibria.TRUTH, n_agents, 1)
    return mfg.TrajectoryModel(game, reward, panel, mean_field="equilibrium")


@pytest.fixture
def few_judged(monkeypatch):
    """Judge the shape of an approximation by as many draws as are asked for."""
    monkeypatch.setattr("mfgppl.posterior.laplace.JUDGED", 2)


@pytest.mark.usefixtures("few_judged")
def test_several_equilibria_are_told_after_a_fit():
    model = standards()
    with pytest.warns(ConvergenceWarning, match="several equilibria at the estimate"):
        fit = mfg.mle(model, progressbar=False)
    assert any("several equilibria" in message for message in fit.messages)
    with pytest.warns(ConvergenceWarning, match="several equilibria at .* draws"):
        tree = mfg.laplace(model, draws=50, random_seed=1, progressbar=False)
    assert (tree["sample_stats"]["n_equilibria"] > 1).any()
    assert any("several equilibria" in message for message in tree.attrs["warnings"])


def test_its_equilibrium_is_the_one_reached_from_the_flow_observed():
    """Two panels of one game, each in another equilibrium: each is explained by its own."""
    game, reward, truth = multiple_equilibria.game(), multiple_equilibria.reward, {}
    truth = multiple_equilibria.TRUTH
    found = mfg.equilibrium.find_equilibria(game, reward, parameters=truth, n_starts=6).solutions
    ends = [s.value for s in found if s.converged][:2]
    heights = []
    for end in ends:
        panel = mfg.simulate(game, end.policy, end.mean_field, n_agents=400, random_seed=2)
        model = mfg.TrajectoryModel(game, reward, panel, mean_field="equilibrium")
        values = np.array([list(truth.values())])
        flow = density_of(model).images(values)[0].flow
        np.testing.assert_allclose(flow, end.mean_field.numpy(), atol=1e-6)
        heights.append(density_of(model).heights(values)[0])
    assert np.isfinite(heights).all()


def test_where_no_equilibrium_is_found_the_density_is_zero():
    density = density_of(coupled("market"))
    theta = density.anchor.theta.copy()
    theta[1] = 1e9
    value, gradient = density.evaluator()(theta)
    assert value == -np.inf
    assert (gradient == 0).all()
    assert np.isnan(density.rewards(density.constrained(theta[None]))).all()
    assert density.certificates(density.constrained(theta[None])).n_equilibria.tolist() == [0]


def test_the_pyro_model_raises_where_there_is_none():
    model = coupled("market")
    data = {k: torch.tensor(1e9, dtype=torch.float64) for k in market.TRUTH}
    with pytest.raises((ConvergenceError, ValueError)):
        pyro.poutine.condition(model, data=data)()


@pytest.mark.usefixtures("few_judged")
def test_draws_are_certified():
    tree = mfg.laplace(coupled("two roads"), draws=40, random_seed=1, progressbar=False)
    stats = tree["sample_stats"]
    assert float(stats["equilibrium_residual"].max()) <= TOLERANCE
    assert (stats["n_equilibria"] == 1).all()
    assert tree.attrs["mean_field"] == "equilibrium"


# the door


def test_wrong_models_are_refused():
    panel = coupled("two roads").panel
    with pytest.raises(ValueError, match="needs likelihood='causal'"):
        mfg.TrajectoryModel(
            two_roads(), avoid_crowds, panel, likelihood="energy", mean_field="equilibrium"
        )
    with pytest.raises(ValueError, match="must be 'empirical', 'equilibrium' or an array"):
        mfg.TrajectoryModel(two_roads(), avoid_crowds, panel, mean_field="equilibirum")
    moving = epidemic()

    def sparse(mean_field, time):
        table = moving.transition(mean_field, time).detach().numpy()
        return scipy.sparse.csr_array(table.reshape(4, 2))

    game = epidemic(transition=sparse)
    with pytest.raises(ValueError, match="dense tensors computed in torch"):
        mfg.TrajectoryModel(game, fear, coupled("epidemic").panel, mean_field="equilibrium")


def test_a_panel_that_does_not_see_all_times_will_do():
    """Its flow is not needed: the search begins with the crowd that stays where it began."""
    game, reward, truth = CASES["market"]
    frame = as_frame(played(game, reward, truth, 2000, 2))
    early = mfg.Trajectories.from_frame(frame[frame["time"] < 4], state=["price", "stock"])
    model = mfg.TrajectoryModel(game, reward, early, mean_field="equilibrium")
    fit = mfg.mle(model, progressbar=False)
    z = (fit.params - np.array(list(truth.values()))) / fit.bse
    assert (z.abs() < STANDARD_ERRORS).all()
    assert early.horizon < game.shape[0]


def test_a_likelihood_that_rises_without_end_is_told():
    """Sixty drivers do not identify a dislike of crowds: no maximum, and no standard error."""
    with pytest.warns((ConvergenceWarning, mfg.exceptions.IdentificationWarning)):
        fit = mfg.mle(coupled("two roads", 300, 2), progressbar=False)
    assert fit.params["crowding"] > 1e3
    assert np.isnan(fit.bse["crowding"])
