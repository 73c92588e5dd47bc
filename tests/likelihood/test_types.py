"""Agents of several types: cells against product spaces, separate fits, loops and enumeration."""

import functools
import itertools
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.linalg
import torch
from games import ROUNDING, random_rows

import mfgppl as mfg
from mfgppl.data.trajectories import Trajectories
from mfgppl.density.of_model import density_of

S, A, T, SIZES, CITIES = 3, 2, 4, ["small", "large"], ["north", "south"]
SHARES = {"small": 0.3, "large": 0.7}
INITIAL = random_rows(1, 2, S) * np.array([[0.3], [0.7]])
TABLES = random_rows(2, 2, S, A, S)
TRUTH = {"pay": 0.7, "crowding": 1.5, "effort": [0.4, 0.9]}


def game(**changes):
    """Return a game of two sizes of firms with dynamics of their own."""
    arguments = {
        "states": {"stock": range(S)},
        "actions": ["stay", "move"],
        "types": {"size": SIZES},
        "horizon": T,
        "transition": dict(zip(SIZES, TABLES, strict=True)),
        "initial": INITIAL.ravel(),
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def reward(x):
    """Return the worth of stock less the cost of company and of a move, which differs by size."""
    pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    effort = pyro.sample("effort", x.size.each(dist.Normal(0.0, 2.0)))
    return pay * x.stock - crowding * x.density - effort[x.size.codes] * (x.action == "move")


def product_game(**changes):
    """Return the same game with the size as a state that never changes."""
    arguments = {
        "states": {"size": SIZES, "stock": range(S)},
        "actions": ["stay", "move"],
        "horizon": T,
        "transition": block_diagonal(TABLES),
        "initial": INITIAL.ravel(),
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def block_diagonal(tables):
    flat = scipy.linalg.block_diag(*[t.reshape(S * A, -1) for t in tables])
    return flat.reshape(len(tables) * S, A, -1)


def product_reward(x):
    """Return the same reward by coordinates of the product space."""
    pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    met = x.density.reshape(-1, 2, S, 1).sum(1, keepdim=True).expand(-1, 2, -1, -1)
    company = met.reshape(-1, 2 * S, 1)
    return pay * x.stock - crowding * company - effort[x.size.codes] * (x.action == "move")


@functools.cache
def panel(n_agents=300):
    world = mfg.solve_equilibrium(game(), reward, parameters=TRUTH, throw=True).value
    return mfg.simulate(game(), world.policy, world.mean_field, n_agents=n_agents, random_seed=1)


def both(density, theta):
    value, gradient = density.evaluator()(theta)
    return value, gradient.copy()


@pytest.mark.parametrize("mean_field", ["empirical", "equilibrium"])
@pytest.mark.parametrize("moving", [False, True])
def test_types_are_the_product_space_with_a_coordinate_that_never_changes(mean_field, moving):
    """Value, gradient, fit and second derivatives; fixed dynamics and those that a crowd moves."""
    one, other = game(), product_game()
    if moving:
        one, other = (
            g.replace(transition=t) for g, t in zip((one, other), moving_pair(), strict=True)
        )
    models = [
        mfg.TrajectoryModel(one, reward, panel(), mean_field=mean_field),
        mfg.TrajectoryModel(other, product_reward, panel(), mean_field=mean_field),
    ]
    densities = [density_of(m) for m in models]
    for theta in np.random.default_rng(3).standard_normal((3, 4)):
        found, expected = (both(d, theta) for d in densities)
        assert found[0] == pytest.approx(expected[0], rel=ROUNDING)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-8, atol=1e-8)
    fits = [mfg.mle(m, svi_steps=0, flow_bias=False, progressbar=False) for m in models]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-6)
    np.testing.assert_allclose(fits[0].bse, fits[1].bse, rtol=1e-5)
    assert list(fits[0].params.index)[2:] == ["effort[small]", "effort[large]"]


def moving_pair():
    """Return dynamics that slow down where many are, by type and over the product space."""
    tables = torch.from_numpy(TABLES)

    def slowed(table):
        def transition(crowd, time):
            stay = torch.eye(S, dtype=torch.float64)[:, None, :].expand(-1, A, -1)
            slow = crowd[:, None, None]
            return slow * stay + (1 - slow) * table

        return transition

    def product(crowd, time):
        met = crowd.reshape(2, S).sum(0)
        blocks = [slowed(t)(met, time) for t in tables]
        flat = torch.block_diag(*[b.reshape(S * A, S) for b in blocks])
        return flat.reshape(2 * S, A, 2 * S)

    return {k: slowed(t) for k, t in zip(SIZES, tables, strict=True)}, product


def test_one_type_is_a_game_without():
    plain = game(types=None, transition=TABLES[0], initial=INITIAL[0] / 0.3)
    one = game(types={"size": ["small"]}, transition=TABLES[0], initial=INITIAL[0] / 0.3)

    def bare(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
        return -crowding * x.density - 0.3 * (x.action == "move")

    world = mfg.solve_equilibrium(plain, bare, parameters={"crowding": 1.0}, throw=True).value
    seen = mfg.simulate(plain, world.policy, world.mean_field, n_agents=80, random_seed=1)
    frame = seen.to_frame().assign(size="small")
    typed = mfg.Trajectories.from_frame(
        frame, state="stock", types=["size"], state_labels={"stock": range(S)}
    )
    for flow in ("empirical", "equilibrium"):
        found = density_of(mfg.TrajectoryModel(one, bare, typed, mean_field=flow))
        expected = density_of(mfg.TrajectoryModel(plain, bare, seen, mean_field=flow))
        for theta in (np.array([0.4]), np.array([-1.2])):
            assert both(found, theta)[0] == pytest.approx(both(expected, theta)[0], rel=ROUNDING)
            np.testing.assert_allclose(both(found, theta)[1], both(expected, theta)[1], rtol=1e-9)


@pytest.mark.parametrize(
    ("likelihood", "mean_field"),
    [("causal", "empirical"), ("causal", "equilibrium"), ("energy", "empirical")],
)
def test_types_that_meet_their_own_are_separate_fits(likelihood, mean_field):
    """Log likelihoods add up, and with nothing in common the types' own fits come back."""
    apart = game(meets="size")
    world = mfg.solve_equilibrium(apart, reward, parameters=TRUTH, throw=True).value
    seen = mfg.simulate(apart, world.policy, world.mean_field, n_agents=400, random_seed=2)

    def nothing_shared(x):
        pay = pyro.sample("pay", x.size.each(dist.Normal(0.0, 2.0)))
        effort = pyro.sample("effort", x.size.each(dist.Normal(0.0, 2.0)))
        k = x.size.codes
        return pay[k] * x.stock * (1 - x.density) - effort[k] * (x.action == "move")

    def own(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
        effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
        return pay * x.stock * (1 - x.density) - effort * (x.action == "move")

    options = {"likelihood": likelihood, "mean_field": mean_field}
    fit = mfg.mle(
        mfg.TrajectoryModel(apart, nothing_shared, seen, **options), svi_steps=0, flow_bias=False
    )
    total = 0.0
    for k, (size, part) in enumerate(seen.split("size").items()):
        alone = game(types=None, transition=TABLES[k], initial=INITIAL[k] / SHARES[size])
        one = mfg.mle(
            mfg.TrajectoryModel(alone, own, part, **options), svi_steps=0, flow_bias=False
        )
        np.testing.assert_allclose(
            fit.params[[f"pay[{size}]", f"effort[{size}]"]], one.params, rtol=1e-6
        )
        np.testing.assert_allclose(fit.bse[[f"pay[{size}]", f"effort[{size}]"]], one.bse, rtol=1e-5)
        total += one.llf
    assert fit.llf == pytest.approx(total, rel=ROUNDING)


def test_equal_types_are_the_pooled_fit():
    """Types that nothing tells apart change nothing, along the flow seen and in equilibrium."""
    pooled = game(types=None, transition=TABLES[0], initial=INITIAL.sum(0))
    alike = game(transition=TABLES[0], initial=np.outer([0.5, 0.5], INITIAL.sum(0)).ravel())

    def bare(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
        crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
        return pay * x.stock - crowding * x.density - 0.3 * (x.action == "move")

    world = mfg.solve_equilibrium(
        pooled, bare, parameters={"pay": 0.5, "crowding": 1.0}, throw=True
    ).value
    seen = mfg.simulate(pooled, world.policy, world.mean_field, n_agents=200, random_seed=4)
    frame = seen.to_frame()
    frame["size"] = np.where(frame["agent"] % 2 == 0, "small", "large")
    typed = mfg.Trajectories.from_frame(
        frame, state="stock", types=["size"], type_labels={"size": SIZES}
    )
    for flow in ("empirical", "equilibrium"):
        one = mfg.mle(
            mfg.TrajectoryModel(pooled, bare, seen, mean_field=flow), svi_steps=0, flow_bias=False
        )
        other = mfg.mle(
            mfg.TrajectoryModel(alike, bare, typed, mean_field=flow), svi_steps=0, flow_bias=False
        )
        assert other.llf == pytest.approx(one.llf, rel=ROUNDING)
        np.testing.assert_allclose(other.params, one.params, rtol=1e-7)
        np.testing.assert_allclose(other.bse, one.bse, rtol=1e-6)


def test_relabelled_types_permute_results():
    flipped = SIZES[::-1]
    other = game(types={"size": flipped}, initial=INITIAL[::-1].ravel())
    fit, back = (
        mfg.mle(mfg.TrajectoryModel(g, reward, panel()), svi_steps=0, flow_bias=False)
        for g in (game(), other)
    )
    assert back.llf == pytest.approx(fit.llf, rel=ROUNDING)
    np.testing.assert_allclose(back.params[fit.params.index], fit.params, rtol=1e-7)


def test_a_type_that_nobody_has_changes_nothing():
    three = [*SIZES, "huge"]
    tables = dict(zip(three, [*TABLES, TABLES[0]], strict=True))
    initial = np.concatenate([INITIAL.ravel(), np.zeros(S)])
    wider = game(types={"size": three}, transition=tables, initial=initial)

    def same(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
        crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
        return pay * x.stock - crowding * x.density - 0.5 * (x.action == "move")

    for flow in ("empirical", "equilibrium"):
        densities = [
            density_of(mfg.TrajectoryModel(g, same, panel(), mean_field=flow))
            for g in (game(), wider)
        ]
        found, expected = (both(d, np.array([0.3, 0.8])) for d in densities)
        assert found[0] == pytest.approx(expected[0], rel=ROUNDING)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-8)


def test_the_likelihood_is_the_law_of_enumerated_paths():
    """Each path of each type by its own Bellman recursion, along the flow that all make."""
    model = mfg.TrajectoryModel(game(), reward, panel())
    theta = np.array([0.5, 1.0, 0.2, 0.8])
    value = density_of(model).evaluator(prior=0.0, jacobian=0.0)(theta)[0]
    shares = panel().mean_field().reshape(T, 2, S)
    met = shares.sum(1)
    total = 0.0
    for c in range(2):
        table = theta[0] * np.arange(S)[None, :, None] - theta[1] * met[:, :, None]
        table = table - theta[2 + c] * np.arange(A)
        log_policy = np.empty((T, S, A))
        ahead = np.zeros(S)
        for t in reversed(range(T)):
            q = table[t] + (TABLES[c] @ ahead if t < T - 1 else 0.0)
            ahead = np.log(np.exp(q).sum(-1))
            log_policy[t] = q - ahead[:, None]
        chances = np.exp(log_policy)
        law = 0.0
        for states, actions in itertools.product(
            itertools.product(range(S), repeat=2), itertools.product(range(A), repeat=2)
        ):  # two steps of the law sum to one from each start
            law += (
                INITIAL[c, states[0]] / INITIAL[c].sum() * chances[0, states[0], actions[0]]
                * TABLES[c, states[0], actions[0], states[1]] * chances[1, states[1], actions[1]]
            )  # fmt: skip
        assert law == pytest.approx(1.0)
        counts = panel().counts.actions.reshape(T, 2, S, A)[:, c]
        total += (counts * log_policy).sum()
    assert value == pytest.approx(total, rel=ROUNDING)


@pytest.mark.parametrize("mean_field", ["empirical", "equilibrium"])
def test_gradients_are_finite_differences(mean_field):
    moving, _ = moving_pair()
    model = mfg.TrajectoryModel(game(transition=moving), reward, panel(), mean_field=mean_field)
    evaluate = density_of(model).evaluator()
    theta, h = np.array([0.3, 0.9, 0.2, 0.6]), 1e-5
    _, gradient = both(density_of(model), theta)
    for k in range(4):
        step = h * np.eye(4)[k]
        slope = (evaluate(theta + step)[0] - evaluate(theta - step)[0]) / (2 * h)
        assert gradient[k] == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_what_is_met_is_counted_by_hand():
    """Densities, means and shares of the crowd, of parts of it and within one's own labels."""
    sizes = {"size": SIZES, "city": CITIES}
    world = mfg.MeanFieldGame(
        states={"stock": range(S), "mood": ["low", "high"]}, actions=["stay", "move"],
        types=sizes, meets="city", horizon=T, transition=np.full((6, A, 6), 1 / 6),
        initial=np.full(24, 1 / 24),
    )  # fmt: skip
    flow = random_rows(5, T, 24)
    flow[1].reshape(4, 6)[[1, 3]] = 0.0  # nobody in the south at time 1
    flow[1] /= flow[1].sum()
    x = mfg.RewardInputs(world, torch.from_numpy(flow))
    by_cell = flow.reshape(T, 2, 2, S, 2)  # time, size, city, stock, mood
    for (c, (size, city)), t in itertools.product(
        enumerate(itertools.product(range(2), range(2))), range(T)
    ):
        met = by_cell[t, :, city]  # size, stock, mood
        mass = met.sum()
        whole = met.sum(0) / mass if mass else np.zeros((S, 2))
        np.testing.assert_allclose(x.mean_field[c, t].reshape(S, 2), whole, atol=1e-15)
        np.testing.assert_allclose(x.density[c, t, :, 0].reshape(S, 2), whole, atol=1e-15)
        stock = (whole.sum(1) * np.arange(S)).sum()
        assert float(x.expect("stock")[c, t]) == pytest.approx(stock, abs=1e-15)
        large = met[1] / met[1].sum() if mass else np.zeros((S, 2))
        among = x.among(size="large")
        np.testing.assert_allclose(among.mean_field[c, t].reshape(S, 2), large, atol=1e-15)
        assert float(x.share(size="large")[c, t]) == pytest.approx(
            met[1].sum() / mass if mass else 0.0
        )
        high = x.share(mood="high", within="stock")[c, t, :, 0].reshape(S, 2)
        for s in range(S):
            there = met[:, s].sum()
            expected = met[:, s, 1].sum() / there if mass else 0.0
            np.testing.assert_allclose(high[s], expected, atol=1e-15)
        own = met[size]
        mine = own[:, 1].sum() / own.sum() if mass else 0.0
        assert float(x.share(mood="high", within="size")[c, t]) == pytest.approx(mine, abs=1e-15)
        assert float(among.expect("stock")[c, t]) == pytest.approx(
            (large.sum(1) * np.arange(S)).sum(), abs=1e-15
        )


def test_exposure_matrices_weigh_the_cells_own_flows():
    matrix = pd.DataFrame([[0.8, 0.2], [0.5, 0.5]], index=SIZES, columns=SIZES)
    world = game(meets=matrix)
    flow = random_rows(6, T, 2 * S)
    x = mfg.RewardInputs(world, torch.from_numpy(flow))
    own = flow.reshape(T, 2, S) / flow.reshape(T, 2, S).sum(-1, keepdims=True)
    expected = np.einsum("cd,tds->cts", matrix.to_numpy(), own)
    np.testing.assert_allclose(x.mean_field, expected, atol=1e-15)


def test_counterfactuals_and_solvers_are_the_product_spaces():
    """Equilibria, Nash equilibria, social optima and exploitability."""
    for solve in (mfg.solve_equilibrium, mfg.solve_nash, mfg.equilibrium.social_optimum):
        found = solve(game(), reward, parameters=TRUTH)
        expected = solve(product_game(), product_reward, parameters=TRUTH)
        np.testing.assert_allclose(
            found.value.mean_field, expected.value.mean_field, atol=1e-5, err_msg=str(solve)
        )
    policy = mfg.solve_equilibrium(game(), reward, parameters=TRUTH).value.policy
    whole = mfg.equilibrium.exploitability(game(), reward, policy, parameters=TRUTH)
    by_type = mfg.equilibrium.exploitability_by_type(game(), reward, policy, parameters=TRUTH)
    assert list(by_type.index) == SIZES
    np.testing.assert_allclose(by_type["share"], list(SHARES.values()))
    assert whole == pytest.approx((by_type["share"] * by_type["exploitability"]).sum(), rel=1e-9)
    expected = mfg.equilibrium.exploitability(
        product_game(), product_reward, policy, parameters=TRUTH
    )
    assert whole == pytest.approx(expected, rel=1e-9)


def test_draws_and_tables_are_labelled_by_type():
    model = mfg.TrajectoryModel(game(), reward, panel())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few draws
        draws = mfg.nuts(model, draws=60, tune=60, chains=2, random_seed=1, progressbar=False)
    assert draws["posterior"]["effort"].dims == ("chain", "draw", "size")
    assert draws["posterior"]["size"].values.tolist() == SIZES
    flow = draws["constant_data"]["mean_field"]
    assert flow.dims == ("type", "time", "state")
    np.testing.assert_allclose(
        flow.sel(type="large").sum("state"), panel().mean_field()[:, S:].sum(1)
    )
    assert draws["constant_data"]["size"].dims == ("type",)
    assert draws["posterior_predictive"]["action_counts"].dims == (
        "chain", "draw", "type", "time", "state", "action",
    )  # fmt: skip
    policy = mfg.policy(model, draws, draws=4)
    assert policy.dims == ("chain", "draw", "type", "time", "state", "action")
    one = policy.isel(chain=0, draw=0, drop=True)
    back = mfg.simulate(game(), one, model.mean_field, n_agents=10, random_seed=1)
    assert isinstance(back, Trajectories)
    assert mfg.choice_probabilities(model, draws, draws=4).dims == (
        "chain", "draw", "type", "state", "action",
    )  # fmt: skip


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="`types` must be a mapping"):
        game(types=["size"])
    with pytest.raises(ValueError, match="'stock' is a type and a coordinate"):
        game(types={"stock": [1, 2]})
    with pytest.raises(ValueError, match="`meets` must be 'everyone', a type"):
        game(meets="city")
    with pytest.raises(ValueError, match="did you mean `size`"):
        game(meets="sise")
    with pytest.raises(TypeError, match="`meets` must be 'everyone', a type, a list of types"):
        game(meets=np.eye(2))
    with pytest.raises(ValueError, match="must have the types' labels"):
        game(meets=pd.DataFrame(np.eye(2), index=["a", "b"], columns=["a", "b"]))
    with pytest.raises(ValueError, match="`transition` must have a value for each label"):
        game(transition={"small": TABLES[0], "big": TABLES[1]})
    with pytest.raises(ValueError, match="the game has no types; declare them"):
        game(types=None, initial=INITIAL[0] / 0.3)
    with pytest.raises(ValueError, match="over types and states"):
        game(initial=INITIAL.sum(0))
    with pytest.raises(ValueError, match=r"x\.among\(size='huge'\)"):
        mfg.solve_equilibrium(game(), lambda x: x.among(size="huge").density)
    with pytest.raises(ValueError, match=r"within='town' is no coordinate"):
        mfg.solve_equilibrium(game(), lambda x: x.share(stock=1, within="town"))
    with pytest.raises(ValueError, match=r"must broadcast to \(type, T, S, A\)"):
        mfg.solve_equilibrium(game(), lambda x: torch.ones(7))

    def same_name(x):
        return pyro.sample("size", x.size.each(dist.Normal(0.0, 1.0)))[x.size.codes]

    with pytest.raises(ValueError, match="a site cannot be called 'size'"):
        mfg.TrajectoryModel(game(), same_name, panel())


def test_actions_may_be_open_at_times_only():
    """By time, and by type and time: the law of a game whose reward forbids the rest."""
    open_ = np.ones((T, S, A), dtype=bool)
    open_[1, :, 1] = open_[2, 0, 1] = False
    worlds = [game(available=open_), game(available={"small": open_, "large": np.ones((S, A))})]
    for k, world in enumerate(worlds):
        solution = mfg.solve_equilibrium(world, reward, parameters=TRUTH, throw=True).value
        by_cell = solution.policy.reshape(T, 2, S, A)
        assert (by_cell[1, 0, :, 1] == 0).all()
        assert (by_cell[2, 0, 0, 1] == 0).all()
        assert bool((by_cell[1, 1, :, 1] > 0).all()) == bool(k)
        seen = mfg.simulate(
            world, solution.policy, solution.mean_field, n_agents=200, random_seed=3
        )
        model = mfg.TrajectoryModel(world, reward, seen)
        theta = np.array([0.5, 1.0, 0.2, 0.8])
        value = density_of(model).evaluator(prior=0.0, jacobian=0.0)(theta)[0]
        shut = np.zeros((T, 2, S, A))
        shut[:, : 2 - k] = np.where(open_, 0.0, -1e9)[:, None]
        closed = torch.from_numpy(shut).permute(1, 0, 2, 3)

        def forbidding(x, closed=closed):
            return reward(x) + closed

        free = mfg.TrajectoryModel(game(), forbidding, seen)
        expected = density_of(free).evaluator(prior=0.0, jacobian=0.0)(theta)[0]
        assert value == pytest.approx(expected, rel=1e-9)
    shut = open_.copy()
    shut[2, 0] = False
    with pytest.raises(ValueError, match=r"leaves no action in state 0 at time 2"):
        game(available=shut)
    with pytest.raises(mfg.exceptions.DataError, match="action not available in its state"):
        mfg.TrajectoryModel(worlds[0], reward, panel())
