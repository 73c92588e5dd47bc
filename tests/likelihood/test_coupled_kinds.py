"""The coupled likelihood of agents whose kinds are not seen: all kinds make up one crowd."""

import functools

import kinds_world
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROUNDING, random_rows
from scipy.special import logsumexp

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import scores_of
from mfgppl.likelihood.replay import replay_kinds

S, A, T = 3, 2, 4
SOLVER = 1e-7  # a residual of 1e-11, some hundred nats, and what `(I - F_mu)^-1` makes of it
TABLE = random_rows(41, S, A, S)
START = random_rows(42, S)
STATES, MOVES = ["low", "mid", "high"], ["stay", "move"]
SIZES = {"size": ["small", "large"]}
BY_SIZE = np.outer([0.7, 0.3], START).ravel()


def driven(crowd, time):
    """Return dynamics in which a full state is left more often."""
    crowd = crowd.sum(-1) if crowd.ndim > 1 else crowd
    stay = torch.eye(S, dtype=torch.float64)[:, None, :].expand(S, A, S)
    weight = (1 - crowd)[:, None, None] * (0.9 if time % 2 else 0.7)
    return weight * stay + (1 - weight) * torch.from_numpy(TABLE)


def game(**changes):
    arguments = {
        "states": {"stock": STATES}, "actions": MOVES, "horizon": T, "transition": TABLE,
        "initial": START, "discount": 0.9, "temperature": 0.7,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def two_kinds(x):
    """Agents whose cost has two values, in shares that depend on the first state seen."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    tilt = pyro.sample("tilt", x.stock.each(dist.Normal(0.0, 1.0)))[x.first_state.stock.codes]
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(logits=torch.stack([tilt, -tilt], -1)))
    return (x.stock == "high") - crowding * x.density - cost[kind] * (x.action == "move")


def spread(x):
    """Agents whose cost is normal."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with x.agents(nodes=4):
        cost = pyro.sample("cost", dist.Normal(mean, scale))
    return (x.stock == "high") - crowding * x.density - cost * (x.action == "move")


def branching(x):
    """The same as `two_kinds`, with a branch on a value, which cannot be recorded."""
    return two_kinds(x) if float(x.mean_field.detach().sum()) > -1 else 0.0


TRUTH = {"crowding": 1.5, "cost": [0.2, 1.4], "tilt": [0.4, -0.3, 0.1]}
SPREAD = {"crowding": 1.5, "mean": 0.8, "scale": 0.6}
CASES = {
    "two kinds": (game(), two_kinds, TRUTH),
    "coefficient": (game(), spread, SPREAD),
    "moving": (game(transition=driven), two_kinds, TRUTH),
    "joint": (game(joint=True), two_kinds, TRUTH),
    "mistakes": (game(behaviour="mistakes"), two_kinds, TRUTH),
    "beside sizes": (game(types=SIZES, initial=BY_SIZE), two_kinds, TRUTH),
    "sizes apart": (
        game(types=SIZES, initial=BY_SIZE, transition=driven, meets="size"), two_kinds, TRUTH,
    ),
    "stationary": (game(horizon=None), two_kinds, TRUTH),
    "branches in Python": (game(), branching, TRUTH),
}  # fmt: skip
EAGER = ("stationary", "branches in Python")
SLOWLY = [pytest.param(k, marks=pytest.mark.slow) if k in EAGER else k for k in CASES]


@functools.cache
def drawn(name, n=60, seed=1):
    """Return agents of the equilibrium of all kinds together, as nobody sees their kinds."""
    world, program, truth = CASES[name]
    typed, reward = mfg.kinds.as_types(world, program, truth)
    played = mfg.solve_equilibrium(typed, reward, throw=True).value
    panel = mfg.simulate(
        typed, played.policy, played.mean_field, n_agents=n, random_seed=seed,
        **({"n_times": 6} if world.stationary else {}),
    )  # fmt: skip
    return panel.drop_type("cost" if program is spread else "kind")


@functools.cache
def coupled(name):
    world, program, _ = CASES[name]
    return mfg.TrajectoryModel(world, program, drawn(name), mean_field="equilibrium")


def flat(model, truth):
    return np.concatenate([np.ravel(truth[s.name]) for s in density_of(model).program.sites])


def by_hand(panel, tables):
    """Return the log likelihood of agents by loops, the crowd by plain iteration."""
    tilt, costs = np.array(TRUTH["tilt"]), TRUTH["cost"]
    shares = np.exp([tilt, -tilt]) / np.exp([tilt, -tilt]).sum(0)
    flow = np.tile(START, (T, 1))
    for _ in range(3000):
        policies, made = [], np.zeros((T, S))
        for cost, share in zip(costs, shares, strict=True):
            values, policy = np.zeros(S), np.zeros((T, S, A))
            for t in range(T - 1, -1, -1):
                pay = (np.arange(S) == 2) - TRUTH["crowding"] * flow[t]
                q = pay[:, None] - cost * np.array([[0.0, 1.0]])
                q = q + (0.9 * tables(flow[t], t) @ values if t < T - 1 else 0.0)
                values = 0.7 * logsumexp(q / 0.7, axis=1)
                policy[t] = np.exp((q - values[:, None]) / 0.7)
            own = share * START
            for t in range(T):
                made[t] += own
                if t < T - 1:
                    own = np.einsum("s,sa,sax->x", own, policy[t], tables(flow[t], t))
            policies.append(policy)
        change, flow = np.abs(made - flow).max(), 0.5 * (made + flow)
        if change < 1e-14:
            break
    found = []
    for j in range(panel.n_trajectories):
        rows = slice(panel.offsets[j], panel.offsets[j + 1])
        t, s, a = panel.time[rows], panel.state[rows], panel.action[rows]
        acted = np.flatnonzero(a >= 0)
        logs = [np.log(p[t[acted], s[acted], a[acted]]).sum() for p in policies]
        total = logsumexp(np.log(shares[:, s[0]]) + logs)
        if tables(flow[0], 0) is not TABLE:
            for k in acted:
                if k + 1 < len(t) and t[k] < T - 1:
                    total += np.log(tables(flow[t[k]], t[k])[s[k], a[k], s[k + 1]])
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("name", ["two kinds", "moving"])
def test_it_is_that_of_each_agent_along_the_crowd_of_all_kinds(name):
    """Loops that share nothing with the package; moves of the crowd's dynamics are in it."""
    model = coupled(name)

    def moving(crowd, time):
        return driven(torch.from_numpy(crowd.copy()), time).numpy()

    tables = moving if name == "moving" else lambda crowd, time: TABLE
    expected = by_hand(model.panel, tables)
    values = flat(model, TRUTH)
    assert density_of(model).heights(values[None])[0] == pytest.approx(expected.sum(), abs=SOLVER)
    np.testing.assert_allclose(mfg.log_likelihood(model, TRUTH).values, expected, atol=SOLVER)


@pytest.mark.parametrize("name", ["two kinds", "coefficient", "joint", "mistakes", "beside sizes"])
def test_it_is_the_plug_in_likelihood_along_the_equilibrium_of_types(name):
    """The crowd of the game in which kinds are types, as `as_types` makes it."""
    world, program, truth = CASES[name]
    typed, reward = mfg.kinds.as_types(world, program, truth)
    solved = mfg.solve_equilibrium(typed, reward, tolerance=1e-12, throw=True).value.mean_field
    flow = solved.reshape(len(solved), -1, *world.flow_shape[1:]).sum(1)
    model = coupled(name)
    along, values = model.along(flow), flat(model, truth)[None]
    expected = density_of(along).heights(values)[0]
    assert density_of(model).heights(values)[0] == pytest.approx(expected, abs=SOLVER)


@pytest.mark.parametrize("name", SLOWLY)
def test_its_gradient_is_that_of_finite_differences(name):
    """Through the policies, the crowd, and the shares, which move it too."""
    model = coupled(name)
    if name == "branches in Python":
        with pytest.warns(mfg.exceptions.CompilationWarning):
            density = density_of(model)
    else:
        density = density_of(model)
    assert density.path == ("eager" if name in EAGER else "coupled")
    theta = density.program.free(CASES[name][2])
    for prior in (0.0, 1.0):
        evaluate = density.evaluator(prior=prior, jacobian=prior)
        gradient = evaluate(theta)[1].copy()
        for k, step in enumerate(1e-5 * np.eye(len(theta))):
            slope = (evaluate(theta + step)[0] - evaluate(theta - step)[0]) / 2e-5
            assert gradient[k] == pytest.approx(slope, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", ["two kinds", "coefficient", "moving", "sizes apart"])
def test_kernels_repeat_autograd(name):
    density = density_of(coupled(name))
    values = flat(coupled(name), CASES[name][2])
    value, slope = density.by_autograd(values)
    assert density.heights(values[None])[0] == pytest.approx(value, abs=SOLVER)
    theta = density.program.free(CASES[name][2])
    point = torch.from_numpy(theta).requires_grad_(True)
    run = density.program.run(density.program.split(point))
    moved = torch.cat([v.reshape(-1) for v in run.values.values()]) @ torch.from_numpy(slope)
    (expected,) = torch.autograd.grad(moved, point)
    gradient = density.evaluator(prior=0.0, jacobian=0.0)(theta)[1]
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-6)


def test_shares_move_the_crowd():
    """Along a given flow their slope is another."""
    model = coupled("two kinds")
    density = density_of(model)
    theta = density.program.free(TRUTH)
    flow = density.flows(density.constrained(theta[None]))[0]
    still = density_of(model.along(flow))
    slopes = [d.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy() for d in (density, still)]
    assert np.abs(slopes[0] - slopes[1])[-3:].max() > 1e-3


@pytest.mark.parametrize("name", ["two kinds", "moving", "sizes apart"])
def test_scores_of_agents_add_up_to_the_gradient(name):
    """And second derivatives are those of the density."""
    model = coupled(name)
    density = density_of(model)
    theta = density.program.free(TRUTH)
    gradient = density.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy()
    np.testing.assert_allclose(scores_of(density, theta).sum(0), gradient, atol=1e-6)
    total = float(mfg.log_likelihood(model, TRUTH).sum())
    values = density.constrained(theta[None])
    assert total == pytest.approx(density.heights(values)[0], abs=SOLVER)


@pytest.mark.parametrize("name", ["two kinds", "moving"])
def test_the_pyro_model_has_this_density(name):
    """Value and gradient, with the crowd's moves as a factor where there are any."""
    model = coupled(name)
    density = density_of(model)
    given = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in TRUTH.items()}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data=given)).get_trace()
    trace.compute_log_prob()
    assert "kind" not in trace.nodes
    logs = [trace.nodes[k]["log_prob"].sum() for k in ("actions", "moves") if k in trace.nodes]
    values = flat(model, TRUTH)
    total = torch.stack(logs).sum()
    assert total.item() == pytest.approx(density.heights(values[None])[0], abs=SOLVER)
    found = torch.autograd.grad(total, list(given.values()))
    found = np.concatenate([g.numpy().ravel() for g in found])
    named = dict(zip(given, torch.from_numpy(found).split([1, 2, 3]), strict=True))
    ordered = np.concatenate([named[s.name].numpy() for s in density.program.sites])
    np.testing.assert_allclose(ordered, density.by_autograd(values)[1], atol=1e-5)


@pytest.mark.parametrize("name", ["two kinds", "moving"])
def test_one_kind_is_the_coupled_likelihood(name):
    """A mixture of one."""

    def plain(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
        return (x.stock == "high") - crowding * x.density - cost * (x.action == "move")

    def one(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.ones(1)))
        return (x.stock == "high") - crowding * x.density - cost * (x.action == "move") + 0 * kind

    world, panel = CASES[name][0], drawn(name)
    models = [mfg.TrajectoryModel(world, p, panel, mean_field="equilibrium") for p in (plain, one)]
    found = [density_of(m).evaluator(prior=0.0, jacobian=0.0) for m in models]
    for theta in np.array([[1.2, 0.5], [0.3, -0.4]]):
        (value, gradient), (other, slope) = [f(theta) for f in found]
        assert other == pytest.approx(value, abs=1e-8)
        np.testing.assert_allclose(slope, gradient, atol=1e-8)


def test_it_is_fitted_and_says_who_is_who():
    """At the reference world's truth, within its errors."""
    panel = kinds_world.panel(1, n=400)
    model = mfg.TrajectoryModel(
        kinds_world.GAME, kinds_world.program(2), panel, mean_field="equilibrium"
    )
    fit = mfg.mle(model, progressbar=False)
    assert fit.converged
    assert "equilibrium within" in fit.reason
    assert "2 kinds" not in str(fit.messages)
    order = np.argsort(fit.params[["menu[0]", "menu[1]"]].to_numpy())
    names = ["margin", "crowding", *(f"menu[{k}]" for k in order), f"share[{order[0]}]"]
    away = (fit.params[names].to_numpy() - [0.3, 2.0, 0.4, 2.0, 0.6]) / fit.bse[names].to_numpy()
    assert np.abs(away).max() < 3
    np.testing.assert_allclose(fit.kinds.sum(axis=1), 1.0, atol=ROUNDING)


def test_panels_are_drawn_along_the_equilibrium_at_the_parameters():
    """Where the crowd drives the dynamics, those of its own flow."""
    model = coupled("moving")
    density, values = density_of(model), flat(model, TRUTH)[None]
    core, flow = density.rewards(values)[0], density.flows(values)[0]
    panel, node = replay_kinds(model, core, flow=torch.from_numpy(flow), random_seed=3)
    assert panel.n_trajectories == model.panel.n_trajectories
    assert set(node) == {0, 1}


def test_what_has_no_equilibrium_here_is_refused():
    """Shares that read the crowd, sites called as coordinates, a matrix beside moving dynamics."""

    def by_crowd(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        share = x.mean_field[0, 0]
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.stack([share, 1 - share])))
        return -cost[kind] * (x.action == "move")

    def named(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with x.agents:
            stock = pyro.sample("stock", dist.Categorical(torch.ones(2)))
        return -cost[stock] * (x.action == "move")

    for program, message in ((by_crowd, "read the crowd"), (named, "called as a coordinate")):
        with pytest.raises(ValueError, match=message):
            mfg.TrajectoryModel(game(), program, drawn("two kinds"), mean_field="equilibrium")
    meets = pd.DataFrame(np.eye(2), SIZES["size"], SIZES["size"])
    world = game(types=SIZES, initial=BY_SIZE, transition=driven, meets=meets)
    with pytest.raises(ValueError, match="exposure matrix"):
        mfg.TrajectoryModel(world, two_kinds, drawn("sizes apart"), mean_field="equilibrium")
