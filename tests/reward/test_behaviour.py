"""What agents are and how they behave, against expectations added up over all that can happen."""

import functools
import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from games import ROUNDING, random_rows

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.response import soft_response
from mfgppl.reward.program import bind, double_precision

S, A, T = 3, 2, 4
TABLES = random_rows(21, T, S, A, S)
INITIAL = random_rows(22, S)
OPEN = np.ones((T, S, A), dtype=bool)
OPEN[1, 0, 1] = OPEN[3, 2, 0] = False
LAWS = ["entropy", "mistakes", "boltzmann"]
TRUTH = {
    "pay": 0.6, "crowding": 1.3, "end": [0.0, 1.0, -0.5], "month": [0.5, -0.4, 0.3],
    "patience": 0.8, "noise": 0.6, "lapse": 0.15,
}  # fmt: skip


def slowed(crowd, time):
    """Return dynamics that a crowd slows down, which differ by time."""
    stay = torch.eye(S, dtype=torch.float64)[:, None, :].expand(-1, A, -1)
    return crowd[:, None, None] * stay + (1 - crowd[:, None, None]) * torch.from_numpy(TABLES)[time]


KINDS = {
    "one table": TABLES[0],
    "tables by time": TABLES,
    "sparse": scipy.sparse.csr_array(TABLES[0].reshape(S * A, S)),
    "moving": slowed,
}


def game(kind="one table", **changes):
    arguments = {
        "states": range(S), "actions": ["stay", "move"], "horizon": T, "initial": INITIAL,
        "transition": KINDS[kind], "discount": 0.9, "temperature": 0.7, "available": OPEN,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def agent(x):
    """Return preferences with all their parts."""
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    end = pyro.sample("end", dist.Normal(0.0, 1.0).expand([S]).to_event(1))
    month = mfg.period_effects(x, "month", dist.Normal(0.0, 1.0))
    moves = x.action == "move"
    return mfg.Preferences(
        pay * x.state * moves - crowding * x.density,
        terminal=end[x.state.codes],
        shock=month * moves,
        discount=pyro.sample("patience", dist.Beta(8.0, 2.0)),
        temperature=pyro.sample("noise", dist.LogNormal(0.0, 0.3)),
        lapse=pyro.sample("lapse", dist.Beta(1.0, 9.0)),
    )


def tables_at(flow, kind, truth=TRUTH):
    """Return reward (T, S, A), terminal (S,), shock (T,) of moving, and moves (T, S, A, S)."""
    reward = (
        truth["pay"] * np.arange(S)[:, None] * np.arange(A) - truth["crowding"] * flow[:, :, None]
    )
    x = mfg.RewardInputs(game(kind), torch.from_numpy(flow))
    given = {"month": torch.tensor(truth["month"], dtype=torch.float64)}
    with pyro.poutine.condition(data=given):
        month = mfg.period_effects(x, "month", dist.Normal(0.0, 1.0)).numpy().ravel()
    moves = {"one table": [TABLES[0]] * T, "sparse": [TABLES[0]] * T, "tables by time": TABLES}
    by_time = moves.get(kind)
    if by_time is None:
        by_time = [slowed(torch.from_numpy(flow[t]), t).numpy() for t in range(T)]
    return reward, np.array(truth["end"]), month, by_time


def value(q, law, noise):
    """Return the value of a state from the Q of its open actions."""
    chances = [math.exp((one - max(q)) / noise) for one in q]
    if law == "entropy":
        return max(q) + noise * math.log(sum(chances))
    if law == "mistakes":
        return sum(c * one for c, one in zip(chances, q, strict=True)) / sum(chances)
    return max(q)


def policy_by_recursion(flow, kind, law, lookahead, truth=TRUTH):
    """Return the policy (T, S, A), each future followed in turn."""
    reward, end, month, moves = tables_at(flow, kind, truth)
    noise, patience, lapse = truth["noise"], truth["patience"], truth["lapse"]

    def q_of(t, s, a, left):
        ahead = sum(moves[t][s, a, x] * value_of(t + 1, x, left - 1) for x in range(S))
        return reward[t, s, a] + patience * ahead

    @functools.cache
    def value_of(t, s, left):
        if t == T:
            return end[s]
        if left == 0:
            return 0.0
        return value([q_of(t, s, a, left) for a in range(A) if OPEN[t, s, a]], law, noise)

    policy = np.zeros((T, S, A))
    for t, s in itertools.product(range(T), range(S)):
        there = [a for a in range(A) if OPEN[t, s, a]]
        q = [q_of(t, s, a, lookahead or T) + (month[t] if a == 1 else 0.0) for a in there]
        total = sum(math.exp(one / noise) for one in q)
        for a, one in zip(there, q, strict=True):
            policy[t, s, a] = (1 - lapse) * math.exp(one / noise) / total + lapse / len(there)
    return policy


def panel_of(world, flow, policy, n_agents=60):
    """Return a panel whose agents leave early and come late."""
    frame = mfg.simulate(world, policy, flow, n_agents=n_agents, random_seed=3).to_frame()
    agent_number, time = frame["agent"].to_numpy(), frame["time"].to_numpy()
    kept = (time >= agent_number % 3) & (time < T - agent_number % 2)
    panel = mfg.Trajectories.from_frame(
        frame[kept], agent="agent", time="time", state="state", action="action"
    )
    return panel.recode(world.space, world.actions)


def log_likelihood_of(panel, policy):
    """Return the log likelihood of a panel, row by row."""
    acted = panel.action >= 0
    rows = zip(panel.time[acted], panel.state[acted], panel.action[acted], strict=True)
    return sum(math.log(policy[t, s, a]) for t, s, a in rows)


def theta_of(density, truth=TRUTH):
    return density.program.free({k: np.array(v) for k, v in truth.items()})


FLOW = random_rows(23, T, S)


WORLDS = [
    *[("one table", law, lookahead) for law in LAWS for lookahead in (None, 1, 2)],
    ("tables by time", "entropy", None), ("sparse", "mistakes", None), ("sparse", "entropy", 2),
    ("moving", "mistakes", T), ("moving", "boltzmann", None), ("moving", "entropy", 2),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "law", "lookahead"), WORLDS)
def test_the_likelihood_is_that_of_all_futures_added_up(kind, law, lookahead):
    """With all parts at once, on unbalanced panels, with actions that are not always there."""
    world = game(kind, behaviour=law, lookahead=lookahead)
    policy = policy_by_recursion(FLOW, kind, law, lookahead)
    panel = panel_of(world, FLOW, policy)
    density = density_of(mfg.TrajectoryModel(world, agent, panel, mean_field=FLOW))
    theta = theta_of(density)
    found, gradient = density.evaluator(prior=0.0, jacobian=0.0)(theta)
    gradient = gradient.copy()
    assert found == pytest.approx(log_likelihood_of(panel, policy), rel=ROUNDING)
    assert kind == "sparse" or density.path == "graph"

    program, counts = density.program, torch.from_numpy(panel.counts_over(T).actions)
    with double_precision(), pyro.validation_enabled(False):  # autograd through the program alone
        free = torch.from_numpy(theta.copy()).requires_grad_(True)
        log_policy = program.run(program.split(free)).reward / world.temperature
        terms = counts * log_policy.masked_fill(counts == 0, 0.0)
        (slope,) = torch.autograd.grad(terms.sum(), free)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-9)

    steps = 1e-6 * np.eye(len(theta))  # and by recursion, at displaced parameters

    def height(at):
        values = {k: v.tolist() for k, v in density.program.values_at(at).items()}
        return log_likelihood_of(panel, policy_by_recursion(FLOW, kind, law, lookahead, values))

    numbers = [(height(theta + h) - height(theta - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(gradient, numbers, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_a_static_crowd_is_expected_to_stay_as_it_is(law):
    world = game("moving", behaviour=law, beliefs="static")
    policy = np.stack(
        [policy_by_recursion(np.tile(FLOW[t], (T, 1)), "moving", law, None)[t] for t in range(T)]
    )
    panel = panel_of(world, FLOW, policy)
    density = density_of(mfg.TrajectoryModel(world, agent, panel, mean_field=FLOW))
    found, _ = density.evaluator(prior=0.0, jacobian=0.0)(theta_of(density))
    assert found == pytest.approx(log_likelihood_of(panel, policy), rel=ROUNDING)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_agents_of_a_level_expect_those_of_the_level_below(level):
    """Whatever the crowd does; below the first level everybody acts at random."""
    kind = "moving"
    world = game(kind, beliefs=level)
    uniform, flow = OPEN / OPEN.sum(-1, keepdims=True), [INITIAL]
    for t in range(T - 1):
        table = slowed(torch.from_numpy(flow[t]), t).numpy()
        flow.append(np.einsum("s,sa,sax->x", flow[t], uniform[t], table))
    flow, seen = np.stack(flow), []
    for _ in range(level - 1):
        policy, along = policy_by_recursion(flow, kind, "entropy", None), [INITIAL]
        for t in range(T - 1):  # the dynamics answer the crowd of the level itself
            table = slowed(torch.from_numpy(along[t]), t).numpy()
            along.append(np.einsum("s,sa,sax->x", along[t], policy[t], table))
        flow = np.stack(along)
        below = world.replace(beliefs=1 + len(seen))
        found = mfg.solve_equilibrium(below, agent, parameters=TRUTH, throw=True).value
        np.testing.assert_allclose(found.mean_field, flow, atol=1e-9)
        seen.append(flow)
    policy = policy_by_recursion(flow, kind, "entropy", None)
    panel = panel_of(world, FLOW, policy)
    density = density_of(mfg.TrajectoryModel(world, agent, panel, mean_field=FLOW))
    found, _ = density.evaluator(prior=0.0, jacobian=0.0)(theta_of(density))
    assert found == pytest.approx(log_likelihood_of(panel, policy), rel=ROUNDING)
    solution = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True)
    np.testing.assert_allclose(solution.value.policy, policy, atol=1e-9)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["one table", "moving"])
def test_an_equilibrium_is_its_own_response(law, kind):
    """The policy by recursion along the flow generates that flow; values are the law's."""
    world = game(kind, behaviour=law)
    found = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True).value
    flow = found.mean_field.numpy()
    policy, moves = policy_by_recursion(flow, kind, law, None), tables_at(flow, kind)[3]
    along = [INITIAL]
    for t in range(T - 1):
        along.append(np.einsum("s,sa,sax->x", along[t], policy[t], moves[t]))
    np.testing.assert_allclose(np.stack(along), flow, atol=1e-9)
    reward, end, _, moves = tables_at(flow, kind)
    last = reward[-1] + TRUTH["patience"] * moves[-1] @ end
    shown = np.where(OPEN, np.concatenate([reward[:-1], last[None]]), -np.inf)
    np.testing.assert_allclose(found.reward, shown, atol=1e-9)
    noise = TRUTH["noise"]
    values = [value([q for q in last[s] if np.isfinite(q)], law, noise) for s in range(2)]
    np.testing.assert_allclose(found.soft_values[-1][:2], values, atol=1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_the_coupled_likelihood_has_the_slope_of_its_differences(law):
    world = game("moving", behaviour=law)
    found = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True).value
    panel = mfg.simulate(world, found.policy, found.mean_field, n_agents=80, random_seed=1)
    model = mfg.TrajectoryModel(world, agent, panel, mean_field="equilibrium")
    density = density_of(model)
    evaluate, theta = density.evaluator(prior=0.0, jacobian=0.0), theta_of(density)
    gradient = evaluate(theta)[1].copy()
    steps = 1e-5 * np.eye(len(theta))
    numbers = [(evaluate(theta + h)[0] - evaluate(theta - h)[0]) / 2e-5 for h in steps]
    np.testing.assert_allclose(gradient, numbers, rtol=1e-6, atol=1e-5)
    assert density.path == "coupled"


def test_parts_by_type_are_those_of_games_of_each_type():
    """Patience, noise, lapses and shocks of two sizes, beside each size in a game of its own."""
    apart = {"small": (0.9, 0.5, 0.1, 0.4), "large": (0.6, 1.2, 0.0, -0.7)}

    def of(x, numbers):
        patience, noise, lapse, size = numbers
        month = torch.linspace(-1.0, 1.0, T, dtype=torch.float64)[:, None, None]
        return mfg.Preferences(
            0.5 * x.state * (x.action == "move"), terminal=0.3 * x.state,
            shock=size * month * (x.action == "move"), discount=patience, temperature=noise,
            lapse=lapse,
        )  # fmt: skip

    def typed(x):
        numbers = torch.tensor(list(apart.values()), dtype=torch.float64).T
        return of(x, [row[x.size.codes] for row in numbers])

    world = game(
        types={"size": list(apart)}, initial=np.tile(INITIAL, 2) / 2, available=OPEN.any(0)
    )
    both = mfg.solve_equilibrium(world, typed, throw=True).value.policy.reshape(T, 2, S, A)
    for k, numbers in enumerate(apart.values()):
        one = game(available=OPEN.any(0))
        alone = mfg.solve_equilibrium(one, lambda x, n=numbers: of(x, n), throw=True).value
        np.testing.assert_allclose(both[:, k], alone.policy, atol=1e-12)
    with pytest.raises(ValueError, match="each type has a discount of its own"):
        mfg.equilibrium.exploitability(world, typed, both.reshape(T, 2 * S, A))

    def shared(x):
        month = torch.linspace(-1.0, 1.0, T, dtype=torch.float64)[:, None, None]
        lapse, size = (torch.tensor(v)[x.size.codes].double() for v in ([0.1, 0.0], [0.4, -0.7]))
        return mfg.Preferences(
            0.5 * x.state * (x.action == "move"), terminal=0.3 * x.state,
            shock=size * month * (x.action == "move"), lapse=lapse,
        )  # fmt: skip

    constants = {
        "discount": {"small": 0.9, "large": 0.6},
        "temperature": {"small": 0.5, "large": 1.2},
    }
    again = mfg.solve_equilibrium(world.replace(**constants), shared, throw=True).value
    np.testing.assert_allclose(again.policy.reshape(T, 2, S, A), both, atol=1e-7)
    with pytest.raises(ValueError, match="`discount` must lie in"):
        world.replace(discount={"small": 0.9, "large": 1.6})
    with pytest.raises(ValueError, match="a stationary game takes one discount"):
        world.replace(horizon=None, discount={"small": 0.9, "large": 0.6})


def test_parts_that_change_nothing_change_no_number():
    """A reward, the same as preferences, and with the game's own constants."""
    world = game(available=None)

    def plain(x):
        return pyro.sample("pay", dist.Normal(0.0, 1.0)) * x.state * (x.action == "move")

    def same(x):
        return mfg.Preferences(plain(x))

    def scaled(x):
        return mfg.Preferences(plain(x), temperature=0.7)

    def whole(x):
        return mfg.Preferences(plain(x), terminal=0.0, shock=0.0, discount=0.9, lapse=0.0)

    policy = np.full((T, S, A), 0.5)
    panel = mfg.simulate(world, policy, FLOW, n_agents=50, random_seed=1)
    values = []
    for program in (plain, same, scaled, whole):
        density = density_of(mfg.TrajectoryModel(world, program, panel))
        found, gradient = density.evaluator()(np.array([0.7]))
        values.append([found, *gradient])
    assert values[0] == values[1] == values[2]
    np.testing.assert_allclose(values[3], values[0], rtol=1e-12)


@pytest.mark.parametrize("noise", [1.0, 0.2])
def test_published_distances_from_equilibrium_of_an_epidemic(noise):
    """Problem SIS of Cui and Koeppl (2021) under three laws, computed independently."""
    known = {
        1.0: {"boltzmann": 4.520210, "mistakes": 4.696374, "entropy": 4.736942},
        0.2: {"boltzmann": 1.425803, "mistakes": 1.491392, "entropy": 1.838002},
    }

    def spread(crowd, time):
        caught = 0.81 * crowd[1]
        out, home = torch.stack([1 - caught, caught]), torch.tensor([1.0, 0.0])
        ill = torch.tensor([0.3, 0.7], dtype=torch.float64).expand(2, 2)
        return torch.stack([torch.stack([out, home.to(out)]), ill])

    def reward(x):
        return -1.0 * (x.health == "ill") - 0.5 * (x.action == "home")

    for law, expected in known[noise].items():
        world = mfg.MeanFieldGame(
            states={"health": ["well", "ill"]}, actions=["out", "home"], horizon=50,
            transition=spread, initial=[0.9, 0.1], temperature=noise, behaviour=law,
        )  # fmt: skip
        policy = mfg.solve_equilibrium(world, reward, throw=True).value.policy
        found = mfg.equilibrium.exploitability(world, reward, policy)
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("start", ["marginal", "conditional"])
def test_theorem_4_with_an_end_and_a_temperature(start):
    """Trajectories that reach the end weigh it, whatever the last move; all paths added up."""
    world = game(discount=1.0, available=None)

    def ended(x):
        end = pyro.sample("end", dist.Normal(0.0, 1.0).expand([S]).to_event(1))
        noise = pyro.sample("noise", dist.LogNormal(0.0, 0.3))
        reward = 0.5 * x.state * (x.action == "move")
        return mfg.Preferences(reward, terminal=end[x.state.codes], temperature=noise)

    end, noise = np.array([0.2, 1.0, -0.6]), 0.8
    reward = 0.5 * np.arange(S)[:, None] * np.arange(A)
    weights = {}
    for path in itertools.product(range(S), range(A), repeat=T):
        states, actions = path[::2], path[1::2]
        weight = INITIAL[states[0]] if start == "marginal" else 1.0
        for t in range(T - 1):
            weight *= TABLES[0][states[t], actions[t], states[t + 1]]
        paid = sum(reward[s, a] for s, a in zip(states, actions, strict=True))
        ahead = TABLES[0][states[-1], actions[-1]] @ np.exp(end / noise)
        weights[path] = weight * math.exp(paid / noise) * ahead
    panel = mfg.simulate(world, np.full((T, S, A), 0.5), FLOW, n_agents=20, random_seed=1)
    expected = 0.0
    for j in range(panel.n_trajectories):
        rows = slice(panel.offsets[j], panel.offsets[j + 1])
        path = tuple(np.stack([panel.state[rows], panel.action[rows]], 1).ravel().tolist())
        among = [w for p, w in weights.items() if start == "marginal" or p[0] == path[0]]
        expected += math.log(weights[path] / sum(among))
        # the moves that the panel shows are given, as ever: what is left out is the same for all
    moved = 0.0
    for j in range(panel.n_trajectories):
        rows = slice(panel.offsets[j], panel.offsets[j + 1])
        s, a = panel.state[rows], panel.action[rows]
        moved += sum(math.log(TABLES[0][s[t], a[t], s[t + 1]]) for t in range(T - 1))
        moved += math.log(INITIAL[s[0]]) if start == "marginal" else 0.0
    model = mfg.TrajectoryModel(
        world, ended, panel, likelihood="energy", start=start, mean_field=FLOW
    )
    density = density_of(model)
    theta = density.program.free({"end": end, "noise": np.array(noise)})
    found, gradient = density.evaluator(prior=0.0, jacobian=0.0)(theta)
    gradient = gradient.copy()
    assert found == pytest.approx(expected - moved, rel=ROUNDING)
    evaluate = density.evaluator(prior=0.0, jacobian=0.0)
    numbers = [(evaluate(theta + h)[0] - evaluate(theta - h)[0]) / 2e-6 for h in 1e-6 * np.eye(4)]
    np.testing.assert_allclose(gradient, numbers, rtol=1e-6, atol=1e-6)


def test_what_a_policy_is_worth_knows_no_shock_and_no_lapse():
    """Returns add up rewards and the end by the program's own discount."""
    world = game()
    found = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True).value
    flow, policy = found.mean_field.numpy(), found.policy.numpy()
    reward, end, _, moves = tables_at(flow, "one table")
    patience = TRUTH["patience"]
    earned = sum(patience**t * (flow[t][:, None] * policy[t] * reward[t]).sum() for t in range(T))
    arrived = np.einsum("s,sa,sax->x", flow[-1], policy[-1], moves[-1])
    earned += patience**T * arrived @ end
    given = {"parameters": TRUTH}
    value_of = mfg.equilibrium.expected_return(world, agent, policy, **given)
    assert value_of == pytest.approx(earned, rel=1e-12)
    best = mfg.solve_nash(world, agent, **given)
    assert best.converged
    assert mfg.equilibrium.exploitability(world, agent, best.value.policy, **given) <= 1e-4
    with pytest.raises(ValueError, match="without shocks and lapses"):
        mfg.equilibrium.regularised_exploitability(world, agent, policy, **given)


def test_wrong_parts_are_refused():
    world = game()
    panel = mfg.simulate(world, OPEN / OPEN.sum(-1, keepdims=True), FLOW, n_agents=9, random_seed=1)

    def returns(**parts):
        def program(x):
            pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
            drawn = {k: v(x) if callable(v) else v for k, v in parts.items()}
            return mfg.Preferences(pay * (x.action == "move"), **drawn)

        return program

    def model(**parts):
        return mfg.TrajectoryModel(world, returns(**parts), panel)

    def free(x, centred=False):
        month = pyro.sample("month", dist.Normal(0.0, 1.0).expand([T]).to_event(1))
        return (month - month.mean() * centred)[:, None, None] * (x.action == "move")

    with pytest.raises(ValueError, match="the shock does not sum to zero over time"):
        model(shock=free)
    model(shock=lambda x: free(x, centred=True))
    model(shock=lambda x: (x.time == 2) * (x.action == "move"))  # what is given may be anything
    for name, wrong in [("discount", 1.2), ("temperature", 0.0), ("lapse", 1.1)]:
        with pytest.raises(ValueError, match=f"the {name} that the program returns must be"):
            model(**{name: wrong})
    with pytest.raises(ValueError, match=r"discount must broadcast to \(1, 1, 1\)"):
        model(discount=torch.full((T, 1, 1), 0.5))
    with pytest.raises(ValueError, match=r"lapse must broadcast to \(T, S, 1\)"):
        model(lapse=torch.full((1, 1, A), 0.1))
    with pytest.raises(TypeError, match="the shock that the program returns must be a tensor"):
        model(shock="none")
    endless = game(horizon=None, available=None)
    with pytest.raises(ValueError, match="no periods, and so no shocks"):
        mfg.solve_equilibrium(endless, returns(shock=0.0), parameters={"pay": 1.0})
    for name in ("shock", "discount", "lapse"):
        even = game(discount=1.0)
        with pytest.raises(ValueError, match=f"likelihood='energy' knows no {name}"):
            mfg.TrajectoryModel(even, returns(**{name: 0.5}), panel, likelihood="energy")
    with pytest.raises(ValueError, match="the energy likelihood has one law"):
        mfg.TrajectoryModel(
            game(discount=1.0, behaviour="mistakes"), returns(), panel, likelihood="energy"
        )
    whole = game(available=None)
    seen = mfg.simulate(whole, np.full((T, S, A), 0.5), FLOW, n_agents=9, random_seed=1)
    with pytest.raises(ValueError, match="earlier methods know a reward and its end alone"):
        mfg.baselines.max_causal_entropy(seen, whole, reward=returns(lapse=0.1))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"behaviour": "entropic"}, ValueError, "`behaviour` must be one of"),
        ({"lookahead": 0}, ValueError, "`lookahead`"),
        ({"lookahead": 1.5}, TypeError, "`lookahead` must be an integer"),
        ({"beliefs": "level"}, ValueError, "`beliefs` must be one of"),
        ({"beliefs": 0}, ValueError, "`beliefs`"),
        ({"horizon": None, "behaviour": "mistakes"}, ValueError, "knows behaviour='entropy' alone"),
        ({"horizon": None, "beliefs": 2}, ValueError, "levels of reasoning belong to games with"),
    ],
)
def test_wrong_behaviour_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        game(available=None, **changes)


@pytest.mark.parametrize("law", LAWS)
def test_each_set_of_parts_is_as_its_recursion(law):
    """All 32 of them; what is left out is the game's constant, or nothing."""
    parts = ("terminal", "shock", "discount", "temperature", "lapse")
    absent = {
        "terminal": {"end": [0.0] * S}, "shock": {"month": [0.0] * (T - 1)},
        "discount": {"patience": 0.9}, "temperature": {"noise": 0.7}, "lapse": {"lapse": 0.0},
    }  # fmt: skip
    world, flow = game(behaviour=law), torch.from_numpy(FLOW)
    for n in range(len(parts) + 1):
        for chosen in itertools.combinations(parts, n):
            left_out = {
                k: v for part in parts if part not in chosen for k, v in absent[part].items()
            }

            def some(x, chosen=chosen):
                whole = agent(x)
                return mfg.Preferences(whole.reward, **{k: getattr(whole, k) for k in chosen})

            bound = bind(some, TRUTH)
            found = soft_response(world, bound, flow, temperature=0.7).policy
            policy = policy_by_recursion(FLOW, "one table", law, None, TRUTH | left_out)
            np.testing.assert_allclose(found, policy, rtol=ROUNDING, atol=1e-12)
