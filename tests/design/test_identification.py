"""What no data can identify: the rank test against shaping matrices and against derivatives."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from equilibrium.kinds import KINDS, STATIONARY, made, tables_along
from games import ROUNDING, avoid_crowds, random_rows, shop, two_roads

import mfgppl as mfg
from mfgppl.models import invest, malware, market

WIDE = dist.Normal(0.0, 2.0)
ALL_KINDS = [(kind, 3) for kind in KINDS] + [(kind, None) for kind in STATIONARY]


def linear(features, prior=WIDE):
    return mfg.linear_reward(features, priors=prior)


def table(seed, *shape):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


def own_and_crowd(x):
    """Two parameters on tables, a constant, and one that the crowd and the time decide."""
    shift = pyro.sample("shift", WIDE)
    tide = pyro.sample("tide", WIDE)
    base = pyro.sample("base", WIDE)
    turn = pyro.sample("turn", WIDE)
    return shift + tide * x.expect("rank") + base * x.base + turn * (x.action == "a1")


def flow_at_random(game):
    policy = torch.as_tensor(random_rows(5, *game.shape)) * game.available
    return mfg.equilibrium.generate_mean_field(game, policy / policy.sum(-1, keepdim=True))


def shaping_columns(game, flow):
    """Return all shapings (n, T, S, A) along a flow, one for each v that is 1 in one place."""
    T, S, _ = game.shape
    if game.stationary:
        dense = game.transition_along(flow).to_dense().numpy()[0]
        stay = np.eye(S)[:, :, None]
        return np.stack([(stay[s] - game.discount * dense[..., s])[None] for s in range(S)])
    tables = tables_along(game, flow.numpy())
    columns = np.zeros((T * S, *game.shape))
    for t in range(T):
        for s in range(S):
            columns[t * S + s, t, s, :] = 1.0
            if t > 0:
                columns[t * S + s, t - 1] -= game.discount * tables[t - 1][:, :, s]
    return columns


def rank_beside_shapings(game, flow, features):
    """Return how many directions of features (K, T, S, A) lie outside the span of shapings."""
    seen = np.broadcast_to(game.available.numpy(), game.shape)
    spans = shaping_columns(game, flow)[:, seen]
    both = np.concatenate([spans, features[:, seen]])
    return np.linalg.matrix_rank(both, tol=1e-8) - np.linalg.matrix_rank(spans, tol=1e-8)


def features_of(reward, game, flow, names):
    """Return a linear reward's features by setting one parameter to 1."""
    inputs = mfg.RewardInputs(game, flow)
    rows = []
    for name in names:
        data = {k: torch.tensor(float(k == name), dtype=torch.float64) for k in names}
        with pyro.poutine.block(), pyro.condition(data=data):
            rows.append(reward(inputs).broadcast_to(game.shape).numpy())
    return np.stack(rows)


def log_policy(game, flow, reward):
    masked = reward.masked_fill(~game.available, -torch.inf)
    solve = (
        mfg.equilibrium.soft_policy_iteration
        if game.stationary
        else mfg.equilibrium.soft_backward_induction
    )
    transition = game.transition_along(flow)
    return solve(
        masked, transition, discount=game.discount, temperature=game.temperature
    ).log_policy


def effect(game, flow, features, along):
    """Return the largest change of the log policy by central differences at random weights."""
    weights = np.random.default_rng(3).normal(size=len(features))
    policies = [
        log_policy(game, flow, torch.as_tensor(np.tensordot(weights + h * along, features, 1)))
        for h in (1e-5, -1e-5)
    ]
    change = (policies[0] - policies[1]).nan_to_num(0.0)
    return float(change.abs().max()) / 2e-5


def test_invests_crowd_is_named_before_any_data():
    """No data can identify INVEST's term in the crowd's mean, by default and at the truth."""
    for parameters in (None, invest.TRUTH):
        found = mfg.identify(invest.game(), invest.reward, parameters=parameters)
        assert list(found.directions.index) == ["crowd"]
        assert found.rank == 2
        assert not found.identified
        assert found.known.to_dict() == {"worth": True, "crowd": False, "invest": True}
        assert found.everywhere.all()
    assert "no data can identify: crowd\nknown: worth, invest" in repr(found)


@pytest.mark.parametrize("example", [market, malware])
def test_games_with_enough_variation_are_identified(example):
    """The market and MALWARE, a ridge though it be, have no flat direction."""
    found = mfg.identify(example.game(), example.reward, parameters=example.TRUTH)
    assert found.identified
    assert found.known.all()
    assert len(found.directions) == 0
    assert repr(found).startswith("data can identify 3 of 3 directions")


@pytest.mark.parametrize(("kind", "horizon"), ALL_KINDS)
def test_the_rank_is_that_of_features_beside_all_shapings(kind, horizon):
    """In games of every kind the rank equals that of an explicit matrix of shapings, and flat
    directions alone leave the soft policy as it is.
    """
    game = made(kind, horizon=horizon)
    flow = flow_at_random(game)
    names = ["shift", "tide", "base", "turn"]
    features = features_of(own_and_crowd, game, flow, names)
    found = mfg.identify(game, own_and_crowd, mean_field=flow)
    assert found.rank == rank_beside_shapings(game, flow, features) == 2
    assert list(found.directions.index) == ["shift", "tide"]
    for direction in found.directions.to_numpy():
        assert effect(game, flow, features, direction) < 1e-8
    for k in (2, 3):
        assert effect(game, flow, features, np.eye(4)[k]) > 1e-3


@pytest.mark.parametrize(("kind", "horizon"), ALL_KINDS)
def test_a_shaping_is_unidentified(kind, horizon):
    """A potential of random v is flat, alone and added to another feature."""
    game = made(kind, horizon=horizon)
    flow = flow_at_random(game)
    spans = shaping_columns(game, flow)
    shaped = torch.as_tensor(np.tensordot(table(1, len(spans)).numpy(), spans, 1))
    plain = table(2, *game.shape)
    reward = linear({"shaped": shaped, "plain": plain, "both": plain - 0.5 * shaped})
    found = mfg.identify(game, reward, mean_field=flow)
    assert found.rank == 1
    assert found.known.to_dict() == {"shaped": False, "plain": False, "both": False}
    span = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])  # what shaped, and plain less both, span
    projected = found.directions.to_numpy()
    together = np.concatenate([span, projected])
    assert np.linalg.matrix_rank(together, tol=1e-8) == 2


def test_a_potential_at_the_end_is_identified():
    """A shaping whose v does not end at zero is paid out at the last decision, and so is seen."""
    game = shop()
    v = table(1, game.horizon + 1, game.n_states).numpy()
    expected = np.einsum("say,ty->tsa", game.transition.numpy(), v[1:])
    for end, rank in ((0.0, 0), (1.0, 1)):
        followed = expected.copy()
        if end == 0.0:
            followed[-1] = 0.0
        shaped = torch.as_tensor(v[:-1, :, None] - game.discount * followed)
        assert mfg.identify(game, linear({"shaped": shaped})).rank == rank


def test_combinations_have_the_weights_of_the_collinearity():
    """Of b = 2 a and an idle parameter, "a - 0.5 b" and the idle one are named."""
    base = table(1, 5, 6, 4)
    reward = linear({"a": base, "b": 2 * base, "free": table(2, 5, 6, 4), "idle": 0 * base})
    found = mfg.identify(shop(), reward)
    assert list(found.directions.index) == ["a - 0.5 b", "idle"]
    np.testing.assert_allclose(
        found.directions.to_numpy(), [[1, -0.5, 0, 0], [0, 0, 0, 1]], atol=1e-8
    )
    assert found.known.to_dict() == {"a": False, "b": False, "free": True, "idle": False}


def test_a_features_unit_does_not_matter():
    """Features in units from 1e-8 to 1e8 are identified; their collinearity is found as well."""
    base = table(1, 5, 6, 4)
    scaled = linear({"small": 1e-8 * base, "large": 1e8 * table(2, 5, 6, 4)})
    assert mfg.identify(shop(), scaled).identified
    tied = linear({"small": 1e-8 * base, "plain": base})
    assert mfg.identify(shop(), tied).rank == 1


def test_states_that_nobody_reaches_are_no_evidence():
    """A reward paid where no policy leads is unknown, until a play begins there."""
    stays = np.stack([np.eye(3)] * 2, axis=1)
    stays[0, 1] = [0, 1, 0]
    game = mfg.MeanFieldGame(
        states=["a", "b", "c"], actions=["x", "y"], horizon=3, transition=stays, initial=[1, 0, 0]
    )
    reward = linear({k: lambda x, k=k: (x.state == k) * (x.action == "y") for k in "abc"})
    found = mfg.identify(game, reward)
    assert list(found.directions.index) == ["c"]
    elsewhere = game.replace(initial=[0, 0, 1])
    flows = [mfg.solve_equilibrium(g, reward, parameters={"a": 0.0, "b": 0.0, "c": 0.0})
             .value.mean_field for g in (game, elsewhere)]  # fmt: skip
    assert mfg.identify(game, reward, mean_field=flows).identified
    assert list(mfg.identify(game, reward, mean_field=flows[1]).directions.index) == ["a", "b"]


def test_states_that_agents_leave_for_ever_are_evidence():
    """Without a horizon agents begin where the kept distribution has nobody, and are seen there."""
    game = mfg.MeanFieldGame(
        states=["a", "b", "c"],
        actions=["x", "y"],
        horizon=None,
        transition=np.tile([0.0, 1.0, 0.0], (3, 2, 1)),
        initial=[1, 0, 0],
        discount=0.9,
    )
    reward = linear({k: lambda x, k=k: (x.state == k) * (x.action == "y") for k in "abc"})
    found = mfg.identify(game, reward)
    assert list(found.directions.index) == ["c"]


def test_several_plays_tell_what_one_cannot():
    """Where the crowd stands still its weight is tied to the own one; a second play unties them."""

    def reward(x):
        own, crowd = pyro.sample("own", WIDE), pyro.sample("crowd", WIDE)
        return (own + crowd * x.share(state="right")) * (x.state == "right") * (x.action == "stay")

    game = two_roads()
    one, other = np.tile([0.75, 0.25], (4, 1)), np.tile([0.5, 0.5], (4, 1))
    tied = mfg.identify(game, reward, mean_field=one)
    np.testing.assert_allclose(tied.directions.to_numpy(), [[-0.25, 1.0]], atol=ROUNDING)
    assert mfg.identify(game, reward, mean_field=[one, other]).identified
    assert mfg.identify(game, reward, mean_field=one.tolist()).rank == 1


def test_a_product_is_flat_in_a_direction_that_changes():
    """Of parameters that are multiplied only the product is identified, at each point anew."""

    def reward(x):
        scale, taste = pyro.sample("scale", dist.HalfNormal(1.0)), pyro.sample("taste", WIDE)
        return scale * taste * (x.action == "turn") * (x.state == "left")

    found = mfg.identify(two_roads(), reward, parameters={"scale": 0.5, "taste": 2.0})
    np.testing.assert_allclose(found.directions.to_numpy(), [[-0.25, 1.0]], atol=ROUNDING)
    assert found.ranks == (1,) * 5
    assert not found.everywhere.any()
    assert "at these parameters, not at every draw from the prior" in repr(found)
    assert "at 4 draws from the prior data can identify 1" in repr(found)


def test_a_square_is_flat_at_zero_alone():
    """The square of a parameter is identified except where it is zero."""

    def reward(x):
        return pyro.sample("root", WIDE) ** 2 * (x.action == "turn") * (x.state == "left")

    found = mfg.identify(two_roads(), reward, parameters={"root": 0.0})
    assert found.ranks == (0, 1, 1, 1, 1)
    assert mfg.identify(two_roads(), reward).identified


def test_vectors_and_simplices_are_named_by_entry():
    """A vector's flat combination is named by entry; a simplex has one direction fewer."""

    def by_state(x):
        worth = pyro.sample("worth", WIDE.expand([2]).to_event(1))
        return worth[0] + worth[1] * (x.action == "turn") * (x.state == "left")

    found = mfg.identify(two_roads(), by_state)
    assert list(found.directions.index) == ["worth[0]"]

    def by_share(x):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        return share[0] * (x.action == "turn") * (x.state == "left") + 0 * share[1]

    found = mfg.identify(two_roads(), by_share)
    assert (found.rank, found.n_directions) == (1, 2)
    np.testing.assert_allclose(found.directions.to_numpy().sum(1), 0.0, atol=ROUNDING)


def test_a_point_estimate_serves_as_parameters(roads_model):
    """The parameters of a fit are where derivatives are taken."""
    point = mfg.mle(roads_model, svi_steps=0)
    found = mfg.identify(roads_model.game, roads_model.reward, parameters=point)
    np.testing.assert_allclose(found.params, point.params, rtol=1e-12)


def plain(x):
    return pyro.sample("cost", dist.HalfNormal(1.0)) * (x.action == "turn")


def rooted(x):
    return pyro.sample("root", WIDE).abs().sqrt() * (x.action == "turn")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mfg.identify(None, plain), TypeError, "`game` must be a MeanFieldGame"),
        (lambda: mfg.identify(two_roads(), 3), TypeError, "`reward` must be a reward program"),
        (
            lambda: mfg.identify(two_roads(), plain, parameters={"costs": 1.0}),
            ValueError,
            "did you mean `cost`",
        ),
        (
            lambda: mfg.identify(two_roads(), plain, parameters={"cost": 0.0}),
            ValueError,
            "edge of its prior's support",
        ),
        (
            lambda: mfg.identify(two_roads(), plain, parameters={"cost": -1.0}),
            ValueError,
            "outside the support",
        ),
        (
            lambda: mfg.identify(two_roads(), rooted, parameters={"root": 0.0}),
            ValueError,
            "no finite derivative in 'root'",
        ),
        (
            lambda: mfg.identify(two_roads(), plain, mean_field=np.ones((3, 2))),
            ValueError,
            "`mean_field` must have shape",
        ),
        (lambda: mfg.identify(two_roads(), plain, mean_field=[]), ValueError, "at least one flow"),
        (lambda: mfg.identify(two_roads(), plain, flow=None), TypeError, "no argument `flow`"),
        (lambda: mfg.identify(two_roads(), lambda x: x.density), ValueError, "no latent site"),
    ],
)
def test_wrong_inputs_say_what_is_wrong(call, error, words):
    """Messages name the argument and what came."""
    with pytest.raises(error, match=words):
        call()


def test_posterior_draws_say_where_to_look():
    """A product of two parameters: one direction at every draw of the posterior as of the prior."""
    game = two_roads()

    def product(x):
        a = pyro.sample("a", dist.LogNormal(0.0, 1.0))
        b = pyro.sample("b", dist.LogNormal(0.0, 1.0))
        return -a * b * (x.action == "turn")

    world = mfg.solve_equilibrium(game, product, parameters={"a": 1.0, "b": 0.5}).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=300, random_seed=1)
    model = mfg.TrajectoryModel(game, product, panel)
    draws = mfg.laplace(model, random_seed=1, progressbar=False)
    found = mfg.identify(game, product, parameters=draws, mean_field=model.mean_field)
    assert (found.rank, found.n_directions, set(found.ranks)) == (1, 2, {1})
    assert found.law == "posterior"
    # along the flat direction a rises as b falls: da / a = -db / b
    row = found.directions.iloc[0]
    assert row["a"] / found.params["a"] == pytest.approx(-row["b"] / found.params["b"])
    with pytest.raises(ValueError, match="`parameters` lacks the parameter 'crowding'"):
        mfg.identify(game, avoid_crowds, parameters=draws)
