"""The likelihood of agents whose kinds are not seen, against sums over kinds and trajectories."""

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from games import ROUNDING, random_rows
from scipy.special import logsumexp

import mfgppl as mfg
from mfgppl._kernels import threads
from mfgppl.density.of_model import density_of
from mfgppl.density.who_is_who import node_shares
from mfgppl.estimation.point import scores_of

S, A, T = 3, 2, 4
TABLES = random_rows(41, T, S, A, S)
OPEN = np.ones((T, S, A), dtype=bool)
OPEN[1, 0, 1] = OPEN[3, 2, 0] = False
STATES, MOVES = ["low", "mid", "high"], ["stay", "move"]
WORLDS = {
    "one table": {"transition": TABLES[0]},
    "by time": {"transition": TABLES},
    "sparse": {"transition": scipy.sparse.csr_array(TABLES[0].reshape(S * A, S))},
    "mistakes": {"transition": TABLES[0], "behaviour": "mistakes"},
    "boltzmann, two ahead": {"transition": TABLES, "behaviour": "boltzmann", "lookahead": 2},
}
TRUTH = {"pay": 0.4, "cost": [0.2, 1.1], "tilt": [0.3, -0.5, 0.1], "end": [0.0, 0.7, -0.4]}


def game(world="one table", **changes):
    arguments = {
        "states": {"stock": STATES}, "actions": MOVES, "horizon": T, "discount": 0.9,
        "temperature": 0.7, "initial": random_rows(42, S), "available": OPEN, **WORLDS[world],
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def two_kinds(x):
    """Agents whose cost has two values, the share of which depends on the first state seen."""
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    tilt = pyro.sample("tilt", x.stock.each(dist.Normal(0.0, 1.0)))
    end = pyro.sample("end", x.stock.each(dist.Normal(0.0, 1.0)))
    logit = tilt[x.first_state.stock.codes]
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(logits=torch.stack([logit, -logit], -1)))
    reward = pay * (x.stock == "high") * x.density - cost[kind] * (x.action == "move")
    return mfg.Preferences(reward, terminal=end[x.stock.codes])


def frame(seed=0, n=25):
    """Visits of agents who enter late, leave early, have gaps, and do some things alike."""
    rng = np.random.default_rng(seed)
    rows = []
    for agent in range(n):
        first, last = sorted(rng.integers(0, T + 1, size=2))
        for t in range(first, max(last, first + 1)):
            if agent % 5 == 0 and t == 2 and first < 2:
                continue  # a gap
            state, action = rng.integers(S), rng.integers(A)
            while t < T and not OPEN[t, state, action]:
                state, action = rng.integers(S), rng.integers(A)
            if t < T:
                rows.append((agent, t, STATES[state], MOVES[action]))
    rows += [(n, t, "low", "stay") for t in range(T)] + [
        (n + 1, t, "low", "stay") for t in range(T)
    ]
    return pd.DataFrame(rows, columns=["agent", "time", "stock", "action"])


def panel(table, **options):
    return mfg.Trajectories.from_frame(
        table, state="stock", state_labels={"stock": STATES}, action_labels=MOVES, gaps="split",
        **options,
    )  # fmt: skip


FLOW = random_rows(43, T, S)


def model(world="one table", table=None, program=two_kinds, **options):
    table = frame() if table is None else table
    return mfg.TrajectoryModel(game(world), program, panel(table, **options), mean_field=FLOW)


def policy_of(world, cost):
    """Return the policy (T, S, A) of agents with a cost, by loops over time, states and actions."""
    law = WORLDS[world]
    ahead = law.get("lookahead", T)
    tables = law["transition"]
    tables = tables.toarray().reshape(S, A, S) if scipy.sparse.issparse(tables) else tables
    at = lambda t: tables[t] if tables.ndim == 4 else tables  # noqa: E731
    reward = np.array([[[TRUTH["pay"] * (s == 2) * FLOW[t, s] - cost * (a == 1) for a in range(A)]
                        for s in range(S)] for t in range(T)])  # fmt: skip

    def values(t, left):
        """Return Q at time t of agents who look at so many decisions."""
        if t == T - 1:
            following = np.array(TRUTH["end"])
        else:
            following = worth(t + 1, left - 1) if left > 1 else np.zeros(S)
        return reward[t] + 0.9 * at(t) @ following

    def worth(t, left):
        q = np.where(OPEN[t], values(t, left), -np.inf)
        if law.get("behaviour") == "boltzmann":
            return q.max(1)
        soft = 0.7 * logsumexp(q / 0.7, axis=1)
        if law.get("behaviour") == "mistakes":
            shares = np.exp((q - soft[:, None]) / 0.7)
            return (shares * np.where(OPEN[t], q, 0.0)).sum(1)
        return soft

    policy = np.zeros((T, S, A))
    for t in range(T):
        q = np.where(OPEN[t], values(t, ahead), -np.inf)
        policy[t] = np.exp(q / 0.7 - logsumexp(q / 0.7, axis=1, keepdims=True))
    return policy


def by_agent(world, table):
    """Return the log of each kind's share times its likelihood of each agent, (n_agents, 2)."""
    policies = [policy_of(world, cost) for cost in TRUTH["cost"]]
    logs = []
    for _, rows in table.sort_values(["agent", "time"]).groupby("agent"):
        codes = [STATES.index(s) for s in rows["stock"]]
        tilt = TRUTH["tilt"][codes[0]]
        shares = np.exp([tilt, -tilt]) / np.exp([tilt, -tilt]).sum()
        moves = [MOVES.index(a) for a in rows["action"]]
        taken = [
            math.prod(p[t, s, a] for t, s, a in zip(rows["time"], codes, moves, strict=True))
            for p in policies
        ]
        logs.append(np.log(shares * np.array(taken)))
    return np.array(logs)


def flat(fitted):
    return np.concatenate([np.ravel(TRUTH[s.name]) for s in density_of(fitted).program.sites])


@pytest.mark.parametrize("world", WORLDS)
def test_log_likelihood_and_who_is_who_by_enumeration(world):
    """Kernel, twin, Pyro's own sum and Bayes' rule by hand, on a panel with gaps."""
    table = frame()
    here = model(world, table)
    density, value = density_of(here), flat(here)
    expected = by_agent(world, table)
    by_hand = logsumexp(expected, axis=1)
    assert density.heights(value[None])[0] == pytest.approx(by_hand.sum(), abs=ROUNDING)
    core = density.rewards(value[None])[0]
    twin = here.law.log_likelihood(torch.from_numpy(core))
    assert twin.item() == pytest.approx(by_hand.sum(), abs=ROUNDING)
    given = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in TRUTH.items()}
    trace = pyro.poutine.trace(pyro.poutine.condition(here, data=given)).get_trace()
    trace.compute_log_prob()
    assert "kind" not in trace.nodes
    assert float(trace.nodes["actions"]["log_prob"]) == pytest.approx(by_hand.sum(), abs=ROUNDING)
    shares = node_shares(density, value)
    bayes = np.exp(expected - by_hand[:, None])
    np.testing.assert_allclose(shares, bayes, atol=ROUNDING)
    by_panel = mfg.log_likelihood(here, TRUTH)
    np.testing.assert_allclose(by_panel.values, by_hand, atol=ROUNDING)


@pytest.mark.parametrize("world", WORLDS)
def test_gradients_and_curvature_by_differences(world):
    """Of the log likelihood, of each trajectory's part of it, and second derivatives."""
    here = model(world)
    density = density_of(here)
    theta = density.program.free(TRUTH)
    evaluate = density.evaluator(prior=0.0, jacobian=0.0)
    value, gradient = evaluate(theta)
    gradient = gradient.copy()
    point = torch.from_numpy(theta).requires_grad_(True)
    run = density.program.run(density.program.split(point))
    (twin,) = torch.autograd.grad(here.law.log_likelihood(run.reward), point)
    np.testing.assert_allclose(gradient, twin.numpy(), atol=ROUNDING)
    np.testing.assert_allclose(scores_of(density, theta).sum(0), gradient, atol=ROUNDING)
    exact = torch.autograd.functional.hessian(
        lambda at: here.law.log_likelihood(density.program.run(density.program.split(at)).reward),
        torch.from_numpy(theta),
    )
    bend = density.second_derivatives(theta, prior=0.0, jacobian=0.0)
    np.testing.assert_allclose(bend, exact.numpy(), atol=1e-7)
    assert value < 0


def test_scores_by_agent_and_cluster():
    """Trajectories of an agent add up to the gradient of its own log likelihood."""
    here = model()
    density = density_of(here)
    theta = density.program.free(TRUTH)
    scores = scores_of(density, theta)
    owner = here.panel.owner
    for agent in (0, 5):
        alone = here.with_panel(here.panel.subset(owner == agent))
        slope = density_of(alone).evaluator(prior=0.0, jacobian=0.0)(theta)[1]
        np.testing.assert_allclose(scores[owner == agent].sum(0), slope, atol=ROUNDING)


def test_one_kind_is_the_model_without_kinds():
    """To the last digit, in value and gradient."""

    def one(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.ones(1)))
        return pay * (x.stock == "high") * x.density - 0.3 * (x.action == "move") * (kind + 1)

    def none(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        return pay * (x.stock == "high") * x.density - 0.3 * (x.action == "move")

    theta = np.array([0.4])
    found = [
        density_of(model(program=p)).evaluator(prior=0.0, jacobian=0.0)(theta) for p in (one, none)
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-14)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-12)


def coefficient(x):
    """Agents whose cost is spread by a normal law."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with x.agents(nodes=40):
        cost = pyro.sample("cost", dist.Normal(mean, spread))
    return 0.4 * (x.stock == "high") - cost * (x.action == "move")


def log_coefficient(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with x.agents(nodes=40):
        cost = pyro.sample("cost", dist.LogNormal(mean, spread))
    return 0.4 * (x.stock == "high") - cost * (x.action == "move")


@pytest.mark.parametrize(("program", "to"), [(coefficient, np.asarray), (log_coefficient, np.exp)])
def test_random_coefficients_by_integration(program, to):
    """A quadrature equals an integral over the coefficient on a fine grid."""
    here = model(program=program)
    density = density_of(here)
    value = density.heights(np.array([[0.3, 0.6]]))[0]

    def fixed(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
        return 0.4 * (x.stock == "high") - cost * (x.action == "move")

    plain = model(program=fixed)
    grid = np.linspace(-7.0, 7.0, 2001)
    points = to(0.3 + 0.6 * grid)
    law = plain.law
    rewards = density_of(plain).rewards(points[:, None])
    policies = law.log_policy(rewards)
    owner, panel_ = plain.panel.owner, plain.panel
    acted = panel_.action >= 0
    taken = policies[:, panel_.time[acted], panel_.state[acted], panel_.action[acted]]
    logs = np.zeros((len(grid), owner.max() + 1))
    np.add.at(logs.T, owner[panel_.trajectory[acted]], taken.T)
    weight = np.exp(-0.5 * grid**2)
    expected = np.log((weight[:, None] * np.exp(logs)).sum(0) / weight.sum()).sum()
    assert value == pytest.approx(expected, abs=1e-6)


def test_a_vector_of_coefficients_is_a_product_of_nodes():
    """Two independent coefficients in one site equal two sites; correlated ones their own law."""

    def together(x):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with x.agents(nodes=9):
            taste = pyro.sample("taste", dist.Normal(torch.zeros(2), spread).to_event(1))
        return taste[..., 0] * (x.action == "move") + taste[..., 1] * (x.stock == "high")

    def apart(x):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with x.agents(nodes=9):
            first = pyro.sample("first", dist.Normal(0.0, spread))
            second = pyro.sample("second", dist.Normal(0.0, spread))
        return first * (x.action == "move") + second * (x.stock == "high")

    def correlated(x):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        root = torch.stack([torch.stack([spread, 0 * spread]), torch.stack([0 * spread, spread])])
        with x.agents(nodes=9):
            law = dist.MultivariateNormal(torch.zeros(2), scale_tril=root)
            taste = pyro.sample("taste", law)
        return taste[..., 0] * (x.action == "move") + taste[..., 1] * (x.stock == "high")

    at = np.array([[0.8]])
    heights = [density_of(model(program=p)).heights(at)[0] for p in (together, apart, correlated)]
    assert heights[1] == pytest.approx(heights[0], abs=ROUNDING)
    assert heights[2] == pytest.approx(heights[0], abs=ROUNDING)


def test_many_coefficients_by_quasi_monte_carlo():
    """Three independent coefficients: near the product of Gauss and Hermite's nodes."""

    def of(nodes, split):
        def program(x):
            spread = pyro.sample("spread", dist.HalfNormal(1.0))
            if split:
                with x.agents(nodes=nodes):
                    parts = [pyro.sample(n, dist.Normal(0.0, spread)) for n in "abc"]
            else:
                with x.agents(nodes=nodes):
                    taste = pyro.sample("taste", dist.Normal(torch.zeros(3), spread).to_event(1))
                parts = [taste[..., k] for k in range(3)]
            a, b, c = parts
            return a * (x.action == "move") + b * (x.stock == "high") + c * (x.stock == "low")

        return density_of(model(program=program)).heights(np.array([[0.5]]))[0]

    assert of(512, False) == pytest.approx(of(7, True), abs=0.02)


def test_kinds_of_types():
    """Shares and costs may differ by type; types fall apart into models of their own."""
    table = frame()
    table["size"] = np.where(table["agent"] % 2, "big", "small")

    def by_type(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        logit = pyro.sample("logit", x.size.each(dist.Normal(0.0, 1.0)))[x.size.codes]
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(logits=torch.stack([logit, -logit], -1)))
        return -cost[kind] * (x.action == "move") * x.stock.codes

    def plain(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        logit = pyro.sample("logit", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(logits=torch.stack([logit, -logit])))
        return -cost[kind] * (x.action == "move") * x.stock.codes

    both = panel(table, types=["size"], type_labels={"size": ["big", "small"]})
    world = game(types={"size": ["big", "small"]}, initial=np.tile(random_rows(42, S), 2) / 2)
    flow = np.tile(FLOW, 2) / 2
    whole = mfg.TrajectoryModel(world, by_type, both, mean_field=flow)
    height = density_of(whole).heights(np.array([[0.2, 1.1, 0.5, -0.3]]))[0]
    parts = 0.0
    for logit, (_, own) in zip((0.5, -0.3), both.split("size").items(), strict=True):
        apart = mfg.TrajectoryModel(game(), plain, own, mean_field=FLOW)
        parts += density_of(apart).heights(np.array([[0.2, 1.1, logit]]))[0]
    assert height == pytest.approx(parts, abs=ROUNDING)


def test_a_random_agent_is_a_kind():
    """A kind that always lapses takes open actions alike, whatever they are worth."""

    def program(x):
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.stack([share, 1 - share])))
        return mfg.Preferences(-cost * (x.action == "move"), lapse=1.0 * (kind == 1))

    here = model(program=program)
    density = density_of(here)
    policies, _ = here.law.table_arrays(density.rewards(np.array([[0.7, 1.5]]))[0])
    uniform = OPEN / OPEN.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(policies[1])[OPEN], uniform[OPEN], atol=ROUNDING)
    assert np.isfinite(density.evaluator()(density.program.draw(0))[1]).all()


def test_resampled_agents_are_agents_of_their_own():
    """One who is drawn twice has two independent kinds, not one kind for twice the rows."""
    here = model()
    density, value = density_of(here), flat(here)
    logs = mfg.log_likelihood(here, TRUTH).values
    owner = here.panel.owner
    twice = np.concatenate([np.flatnonzero(owner == k) for k in (5, 3, 5)])
    again = density_of(here.with_panel(here.panel.subset(twice)))
    assert again.heights(value[None])[0] == pytest.approx(logs[[5, 3, 5]].sum(), abs=ROUNDING)
    assert density.heights(value[None])[0] == pytest.approx(logs.sum(), abs=ROUNDING)


def test_threads_give_what_one_thread_gives(monkeypatch):
    """Agents side by side add up to the same value and gradient."""
    here = model(table=frame(n=60))
    theta = density_of(here).program.free(TRUTH)
    value, gradient = density_of(here).evaluator()(theta)
    gradient = gradient.copy()
    monkeypatch.setattr("mfgppl._kernels.bridge.WORTH_THREADS", 1)
    monkeypatch.setattr(threads, "n_cores", lambda: 3)
    found = density_of(here).evaluator()(theta)
    assert found[0] == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(found[1], gradient, rtol=1e-10, atol=1e-12)


def test_a_stationary_game_takes_kinds():
    """Value by hand, gradient by differences; times are pooled and agents stay apart."""
    world = mfg.MeanFieldGame(
        states={"stock": STATES}, actions=MOVES, horizon=None, discount=0.8,
        transition=TABLES[0], initial=np.ones(S) / S,
    )  # fmt: skip

    def program(x):
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.stack([share, 1 - share])))
        return -cost[kind] * (x.action == "move") + 0.5 * (x.stock == "high")

    def one(cost):
        return lambda x: -cost * (x.action == "move") + 0.5 * (x.stock == "high")

    table = frame()
    here = mfg.TrajectoryModel(world, program, panel(table), mean_field=np.ones((1, S)) / S)
    density = density_of(here)
    policies = [mfg.solve_equilibrium(world, one(c)).value.policy[0].numpy() for c in (0.2, 1.1)]
    total = 0.0
    for _, rows in table.groupby("agent"):
        pairs = list(zip(rows["stock"], rows["action"], strict=True))
        each = [math.prod(p[STATES.index(s), MOVES.index(a)] for s, a in pairs) for p in policies]
        total += math.log(0.3 * each[0] + 0.7 * each[1])
    theta = density.program.free({"share": 0.3, "cost": [0.2, 1.1]})
    evaluate = density.evaluator(prior=0.0, jacobian=0.0)
    value, gradient = evaluate(theta)
    assert value == pytest.approx(total, abs=1e-8)
    gradient, step = gradient.copy(), 1e-6
    for k, unit in enumerate(np.eye(len(theta))):
        rise = evaluate(theta + step * unit)[0] - evaluate(theta - step * unit)[0]
        assert gradient[k] == pytest.approx(rise / (2 * step), abs=1e-6)


WRONG = [
    (lambda x: pyro.sample("kind", dist.Gamma(1.0, 1.0)), TypeError, "must be Categorical"),
    (
        lambda x: pyro.sample("kind", dist.Categorical(logits=torch.zeros(4, 1, 1, 2))),
        ValueError,
        "differ by time, state or action",
    ),
    (
        lambda x: pyro.sample("kind", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2)),
        ValueError,
        "a number or a vector",
    ),
    (lambda x: pyro.sample("kind", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0)), ValueError,
     "is observed"),
]  # fmt: skip


@pytest.mark.parametrize(("site", "error", "words"), WRONG)
def test_what_an_agent_cannot_have(site, error, words):
    def program(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        with x.agents:
            value = site(x)
        return pay * (x.action == "move") + 0.0 * value

    with pytest.raises(error, match=words):
        model(program=program)


def test_rewards_do_not_read_the_first_state():
    def program(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)))
        return pay * (x.action == "move") * (x.first_state.stock == "low") * (kind == 0)

    with pytest.raises(ValueError, match="only the shares of kinds may"):
        model(program=program)


def test_too_many_nodes():
    def program(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        with x.agents(nodes=20):
            a, b, c = (pyro.sample(n, dist.Normal(0.0, 1.0)) for n in "abc")
        return pay * (x.action == "move") * (a + b + c)

    with pytest.raises(ValueError, match="8000 combinations"):
        model(program=program)


def test_where_kinds_have_no_likelihood():
    """Counted panels, the energy law, other counts and beliefs of a level."""
    rows, whole = panel(frame()), game(discount=1.0)
    counted = mfg.CountedPanel.from_trajectories(rows)
    with pytest.raises(ValueError, match="needs the trajectories one by one"):
        mfg.TrajectoryModel(game(), two_kinds, counted, mean_field=FLOW)
    with pytest.raises(ValueError, match="knows agents of one kind"):
        mfg.TrajectoryModel(whole, two_kinds, rows, likelihood="energy", mean_field=FLOW)
    with pytest.raises(ValueError, match="needs the trajectories one by one"):
        mfg.TrajectoryModel(game(), two_kinds, counted, mean_field="equilibrium")
    with pytest.raises(ValueError, match="beliefs of a level"):
        mfg.TrajectoryModel(game(beliefs=1), two_kinds, rows, mean_field=FLOW)
    with pytest.raises(ValueError, match="agents are of several kinds"):
        mfg.solve_equilibrium(game(), two_kinds, parameters=TRUTH)
    here = model()
    given = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in TRUTH.items()}
    trace = pyro.poutine.trace(pyro.poutine.condition(here, data=given)).get_trace()
    site = trace.nodes["actions"]
    with pytest.raises(ValueError, match="the panel's own trajectories"):
        site["fn"].log_prob(site["value"] + 1)
    with pytest.raises(TypeError, match="takes `nodes`, `known` and `sampled` by name"):
        mfg.RewardInputs(game(), torch.from_numpy(FLOW)).agents(20)


def test_kinds_that_are_seen_of_some_agents():
    """They restrict the sum, which is that of those kinds alone; other labels are refused."""
    table = frame()
    table["seen"] = [{0: "0", 1: "1"}.get(a % 4, "unknown") for a in table["agent"]]

    def program(x, known="seen"):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        tilt = pyro.sample("tilt", x.stock.each(dist.Normal(0.0, 1.0)))
        end = pyro.sample("end", x.stock.each(dist.Normal(0.0, 1.0)))
        logit = tilt[x.first_state.stock.codes]
        with x.agents(known=known):
            kind = pyro.sample("kind", dist.Categorical(logits=torch.stack([logit, -logit], -1)))
        reward = pay * (x.stock == "high") * x.density - cost[kind] * (x.action == "move")
        return mfg.Preferences(reward, terminal=end[x.stock.codes])

    here = model(table=table, program=program, groups=["seen"])
    each = by_agent("one table", table)
    agents = np.unique(table["agent"])
    each[agents % 4 == 0, 1] = each[agents % 4 == 1, 0] = -np.inf
    found = mfg.log_likelihood(here, TRUTH).values
    np.testing.assert_allclose(found, logsumexp(each, axis=1), atol=ROUNDING)
    assert density_of(here).heights(flat(here)[None])[0] == pytest.approx(found.sum(), abs=1e-10)
    table_of = mfg.kinds.probabilities(here, TRUTH)
    np.testing.assert_allclose(table_of[1][agents % 4 == 1], 1.0)
    with warnings.catch_warnings():  # of so few agents
        warnings.simplefilter("ignore")
        fit = mfg.mle(here, restarts=1, svi_steps=0, progressbar=False)
    assert fit.kinds is not None
    np.testing.assert_allclose(fit.kinds[0][agents % 4 == 0], 1.0)
    with pytest.raises(ValueError, match=r"groups=\['seen'\]"):
        model(table=table, program=program)
    table["seen"] = table["seen"].replace("1", "2")
    with pytest.raises(ValueError, match="0 to 1, or 'unknown'; got '2'"):
        model(table=table, program=program, groups=["seen"])


def test_names_of_programs_inputs_are_reserved():
    for name in ("agents", "first_state"):
        with pytest.raises(ValueError, match="input of every reward program"):
            game(states={name: STATES})


def test_all_sites_of_several_levels_are_combined():
    """Kinds whose coefficient has a law of its own: nodes are all combinations, kinds by Bayes."""

    def program(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with x.agents(nodes=7):
            kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.3, 0.7])))
            cost = pyro.sample("cost", dist.Normal(centre[kind], 0.5))
        return -cost * (x.action == "move")

    here = model(program=program)
    assert [(s.name, s.size) for s in here.nodes.sites] == [("cost", 7), ("kind", 2)]

    def alone(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        with x.agents(nodes=7):
            cost = pyro.sample("cost", dist.Normal(centre, 0.5))
        return -cost * (x.action == "move")

    apart = model(program=alone)
    logs = [mfg.log_likelihood(apart, {"centre": c}).values for c in (0.2, 1.1)]
    expected = np.log(0.3 * np.exp(logs[0]) + 0.7 * np.exp(logs[1]))
    found = mfg.log_likelihood(here, {"centre": [0.2, 1.1]}).values
    np.testing.assert_allclose(found, expected, atol=ROUNDING)
    table = mfg.kinds.probabilities(here, {"centre": [0.2, 1.1]})
    np.testing.assert_allclose(table[0], 0.3 * np.exp(logs[0] - expected), atol=ROUNDING)


def test_combinations_of_paths_add_up_to_one():
    """Over all histories from a first state the probabilities of a kindful agent sum to 1."""
    world = game(available=None, horizon=2)
    flow = FLOW[:2]
    rows = []
    paths = list(itertools.product(range(A), range(S), range(A)))
    for agent, (a0, s1, a1) in enumerate(paths):
        rows += [(agent, 0, "low", MOVES[a0]), (agent, 1, STATES[s1], MOVES[a1])]
    table = pd.DataFrame(rows, columns=["agent", "time", "stock", "action"])
    here = mfg.TrajectoryModel(world, two_kinds, panel(table), mean_field=flow)
    logs = mfg.log_likelihood(here, TRUTH).values
    reached = [TABLES[0][0, a0, s1] for a0, s1, _ in paths]
    assert (np.exp(logs) * reached).sum() == pytest.approx(1.0, abs=ROUNDING)
