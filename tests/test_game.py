"""The mean field game: checks, labels, dynamics and features."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
import xarray as xr
from games import ROUNDING, as_frame, epidemic, full_table, lone, random_rows, shop, two_roads

import mfgppl as mfg

PRICES, STOCKS, MOVES = [3, 1, 2], ["low", "high"], ["raise", "hold", "cut", "close"]


def state_of(price, stock) -> int:
    """Return the row-major position of a state of `shop`."""
    return PRICES.index(price) * 2 + STOCKS.index(stock)


def shop_panel(**labels) -> mfg.Trajectories:
    """Return shops that visit every state and take every move, read with sorted labels."""
    game = shop()
    policy = torch.full(game.shape, 0.25, dtype=torch.float64)
    flow = game.initial.repeat(game.horizon, 1)
    played = mfg.simulate(game, policy, flow, n_agents=200, random_seed=4)
    return mfg.Trajectories.from_frame(as_frame(played), state=["stock", "price"], **labels)


def test_sizes_follow_the_labels():
    """States are the product of the coordinates."""
    game = shop()
    assert game.shape == (5, 6, 4)
    assert game.space.labels[state_of(1, "high")] == "1, high"
    assert lone().shape == (1, 1, 1)


def test_sparse_and_dense_transitions_agree():
    """A sparse matrix of shape (S*A, S) is the dense table with its first axes flattened."""
    game = shop()
    table = random_rows(1, 6, 4, 6)
    sparse = shop(transition=scipy.sparse.coo_array(table.reshape(24, 6)))
    flow = game.initial.repeat(5, 1)
    np.testing.assert_array_equal(game.transition_along(flow)[0], table)
    assert sparse.transition_along(flow).is_sparse
    np.testing.assert_array_equal(sparse.transition_along(flow).to_dense()[0], table)


def test_a_callable_transition_sees_the_flow_and_the_time():
    """At each time the function gets that time's row of the flow and the time itself."""
    game = epidemic()
    ill = torch.tensor([0.3, 0.5, 0.1, 0.9], dtype=torch.float64)
    tables = game.transition_along(torch.stack([1 - ill, ill], dim=1))
    assert game.crowd_moves_dynamics
    assert tables.shape == (3, 2, 2, 2)
    for t in range(3):
        assert tables[t, 0, 0, 1] == pytest.approx(0.8 * float(ill[t]))  # out: infected
        assert tables[t, 0, 1, 1] == 0.0  # distance: never
        assert tables[t, 1, 0, 0] == pytest.approx(0.2 + 0.1 * t)  # recovery


def test_a_constant_callable_is_its_table():
    """A function that ignores the crowd gives the table at each step."""
    table = torch.as_tensor(random_rows(1, 6, 4, 6))
    game = shop(transition=lambda mean_field, time: table)
    along = game.transition_along(game.initial.repeat(5, 1))
    np.testing.assert_array_equal(along, table.repeat(4, 1, 1, 1))


def test_one_table_a_step_is_kept_in_order():
    """A transition of shape (T-1, S, A, S) is used step by step."""
    tables = random_rows(3, 4, 6, 4, 6)
    game = shop(transition=tables)
    assert not game.crowd_moves_dynamics
    np.testing.assert_array_equal(game.transition_along(game.initial.repeat(5, 1)), tables)


def test_a_game_of_one_decision_needs_no_step():
    """With T = 1 no transition is used, also not of a function."""
    game = mfg.MeanFieldGame(
        states=["here"],
        actions=["wait"],
        horizon=1,
        transition=lambda mean_field, time: torch.ones(1, 1, 1),
        initial=[1.0],
    )
    assert game.transition_along(torch.ones(1, 1)).shape[1:] == (1, 1, 1)


def test_a_labelled_transition_is_put_in_the_games_order():
    """A DataArray with its axes and labels in another order lands where the labels say."""
    table = random_rows(5, 2, 2, 2)
    labels = {"state": ["low", "high"], "action": ["stay", "go"], "next_state": ["low", "high"]}
    array = xr.DataArray(table, labels, tuple(labels))
    mixed = array.transpose("next_state", "state", "action")
    mixed = mixed.isel(state=[1, 0], action=[1, 0], next_state=[1, 0])
    common = {"states": ["low", "high"], "actions": ["stay", "go"], "initial": [0.5, 0.5]}
    game = mfg.MeanFieldGame(transition=mixed, horizon=2, **common)
    np.testing.assert_array_equal(game.transition, table)


def test_a_labelled_initial_distribution_is_put_in_the_games_order():
    """A share stays with its label."""
    start = xr.DataArray([0.1, 0.9], {"state": ["right", "left"]}, ("state",))
    assert two_roads(initial=start).initial.tolist() == [0.9, 0.1]


@pytest.mark.parametrize("by_time", [False, True])
def test_an_estimated_transition_is_put_in_the_games_order(by_time):
    """In a product space each estimated probability stays with its labels."""
    panel = shop_panel()
    assert panel.space.labels[:3] == ("high, 1", "high, 2", "high, 3")
    estimate = panel.estimate_transition(prior_count=0.5, by_time=by_time)
    table = shop(transition=estimate).transition
    pairs = list(itertools.product(PRICES, STOCKS))
    for (price, stock), move, (price2, stock2) in itertools.product(pairs, MOVES, pairs):
        there = estimate.probabilities.sel(
            state=f"{stock}, {price}", action=move, next_state=f"{stock2}, {price2}"
        )
        here = table[..., state_of(price, stock), MOVES.index(move), state_of(price2, stock2)]
        np.testing.assert_allclose(here, there, atol=ROUNDING)


def test_a_panels_initial_distribution_is_put_in_the_games_order():
    """In a product space each share of the first time stays with its labels."""
    panel = shop_panel()
    start = panel.initial_distribution()
    game = shop(initial=start)
    for price, stock in itertools.product(PRICES, STOCKS):
        share = float(start.sel(state=f"{stock}, {price}"))
        assert float(game.initial[state_of(price, stock)]) == share


@pytest.mark.parametrize("labels", [[0, 0.5, 1], [True, "maybe", 2], ["a", "b", "c"]])
def test_labels_of_any_type_match_those_of_the_panel(labels):
    """Whole and fractional numbers, words or a mix: a panel's estimates fit its own game."""
    game = mfg.MeanFieldGame(
        states=labels,
        actions=labels[::-1],
        horizon=3,
        transition=random_rows(1, 3, 3, 3),
        initial=[0.2, 0.3, 0.5],
    )
    policy = torch.full((3, 3, 3), 1 / 3, dtype=torch.float64)
    panel = mfg.simulate(game, policy, game.initial.repeat(3, 1), n_agents=50, random_seed=1)
    fitted = mfg.MeanFieldGame(
        states=labels,
        actions=labels[::-1],
        horizon=3,
        transition=panel.estimate_transition(prior_count=1.0),
        initial=panel.initial_distribution(),
    )
    np.testing.assert_allclose(fitted.initial, panel.mean_field()[0], atol=ROUNDING)


def test_a_feature_of_one_coordinate_follows_it():
    """A pair (name, values) is one value a label of that coordinate."""
    values = [10.0, 20.0, 30.0]
    game = shop(features={"rent": ("price", values)})
    table = full_table(game.features["rent"], game)
    for t, (i, price), stock, a in itertools.product(range(5), enumerate(PRICES), STOCKS, range(4)):
        assert table[t, state_of(price, stock), a] == values[i]


def test_a_feature_of_the_fast_coordinate_follows_it():
    """The last coordinate's values alternate along the states."""
    game = shop(features={"shelf": ("stock", [1.0, 2.0])})
    assert full_table(game.features["shelf"], game)[0, :, 0].tolist() == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize(
    "dims", list(itertools.permutations(["time", "price", "stock", "action"]))[::5]
)
def test_a_feature_by_named_axes_does_not_depend_on_their_order(dims):
    """Axes are found by name, in whatever order the array has them."""
    values = np.arange(5 * 3 * 2 * 4, dtype=float).reshape(5, 3, 2, 4)
    order = [["time", "price", "stock", "action"].index(d) for d in dims]
    game = shop(features={"f": (dims, values.transpose(order))})
    table = full_table(game.features["f"], game)
    for t, i, j, a in itertools.product(range(5), range(3), range(2), range(4)):
        assert table[t, i * 2 + j, a] == values[t, i, j, a]


@pytest.mark.parametrize(
    ("dims", "pick"),
    [
        (("time",), lambda v, t, s, a: v[t]),
        (("state",), lambda v, t, s, a: v[s]),
        (("action",), lambda v, t, s, a: v[a]),
        (("action", "time"), lambda v, t, s, a: v[a, t]),
        (("state", "time"), lambda v, t, s, a: v[s, t]),
        (("action", "stock"), lambda v, t, s, a: v[a, s % 2]),
        (("stock", "time", "price"), lambda v, t, s, a: v[s % 2, t, s // 2]),
    ],
)
def test_a_feature_of_some_axes_equals_a_loop(dims, pick):
    """Values over any axes appear at each time, state and action that they name."""
    sizes = {"time": 5, "state": 6, "action": 4, "price": 3, "stock": 2}
    values = np.random.default_rng(7).normal(size=[sizes[d] for d in dims])
    game = shop(features={"f": (dims, values)})
    table = full_table(game.features["f"], game)
    for t, s, a in itertools.product(range(5), range(6), range(4)):
        assert table[t, s, a] == pick(values, t, s, a)


def test_a_labelled_feature_is_put_in_the_games_order():
    """A DataArray with labels in another order is read by label."""
    values = np.arange(8.0).reshape(2, 4)
    labels = {"stock": ["high", "low"], "action": ["close", "cut", "hold", "raise"]}
    feature = xr.DataArray(values, labels, ("stock", "action"))
    game = shop(features={"f": feature})
    table = full_table(game.features["f"], game)
    for price, stock, move in itertools.product(PRICES, STOCKS, MOVES):
        expected = float(feature.sel(stock=stock, action=move))
        assert table[0, state_of(price, stock), MOVES.index(move)] == expected


def test_a_full_array_is_a_feature_as_it_is():
    """An array of shape (T, S, A) needs no names."""
    values = np.arange(120.0).reshape(5, 6, 4)
    np.testing.assert_array_equal(shop(features={"f": values}).features["f"], values)


def test_a_feature_with_times_out_of_order_is_put_in_order():
    """Times given as labels are never read by position in another order."""
    feature = xr.DataArray([3.0, 2.0, 0.0, 1.0], {"time": [3, 2, 0, 1]}, ("time",))
    game = two_roads(features={"f": feature})
    assert full_table(game.features["f"], game)[:, 0, 0].tolist() == [0, 1, 2, 3]


def test_a_feature_with_a_time_missing_is_refused():
    feature = xr.DataArray([3.0, 2.0, 1.0, 0.0], {"time": [4, 2, 1, 0]}, ("time",))
    with pytest.raises(ValueError, match="`f` has times that do not count up by 1"):
        two_roads(features={"f": feature})


def test_a_feature_with_the_panels_times_is_read_in_order():
    """Times that count up by one are those of the decisions, from whatever first time."""
    feature = xr.DataArray([9.0, 8.0, 7.0, 6.0], {"time": [12, 13, 14, 15]}, ("time",))
    game = two_roads(features={"f": feature})
    assert full_table(game.features["f"], game)[:, 0, 0].tolist() == [9, 8, 7, 6]


def test_all_actions_are_available_by_default():
    """Without `available` no action is ruled out."""
    assert bool(shop().available.all())


def test_availability_by_label_is_put_in_the_games_order():
    """A labelled table of available actions is read by label."""
    allowed = xr.DataArray(
        [[1, 1], [0, 1]], {"state": ["right", "left"], "action": ["turn", "stay"]},
        ("state", "action"),
    )  # fmt: skip
    game = two_roads(available=allowed)
    # left may stay and not turn; right may do both
    assert game.available.tolist() == [[True, False], [True, True]]


def test_constants_and_arrays_do_not_change_with_the_callers():
    """Writing into the arrays given does not change a game already checked."""
    table, start = random_rows(1, 6, 4, 6), random_rows(2, 6)
    game = shop(transition=table, initial=start)
    table[:], start[:] = 0.0, 0.0
    assert float(game.initial.sum()) == pytest.approx(1.0)
    np.testing.assert_allclose(game.transition.sum(-1), 1.0, atol=ROUNDING)


def test_a_game_is_frozen():
    """A field cannot be set after the checks."""
    with pytest.raises(AttributeError):
        two_roads().horizon = 9


@pytest.mark.parametrize("gap", [1e-9, -1e-9])
def test_rows_may_miss_one_by_rounding_only(gap):
    """A sum within rounding of 1 is accepted."""
    start = np.array([0.8, 0.2 + gap])
    assert float(two_roads(initial=start).initial.sum()) == pytest.approx(1.0, abs=1e-8)


def test_arrays_may_run_backwards():
    """A reversed view is the array that it shows, whatever its strides."""
    table, start = random_rows(1, 3, 2, 3), random_rows(2, 3)
    arguments = {"states": range(3), "actions": ["stay", "move"], "horizon": 4}
    allowed = np.array([[True, False], [True, True], [False, True]])
    backwards, plain = (
        mfg.MeanFieldGame(
            transition=of(table[:, :, ::-1]), initial=of(start[::-1]), available=of(allowed[::-1]),
            **arguments,
        )
        for of in (lambda a: a, np.ascontiguousarray)
    )  # fmt: skip
    for name in ("transition", "initial", "available"):
        assert torch.equal(getattr(backwards, name), getattr(plain, name))


def test_a_panels_space_stands_for_its_states_and_types():
    """The same game as by labels; a game that is changed keeps the types."""
    roads = two_roads(types={"size": ["small", "large"]}, initial=[0.4, 0.1, 0.2, 0.3])
    flow = roads.initial.repeat(roads.horizon, 1)
    policy = torch.full(roads.shape, 0.5, dtype=torch.float64)
    panel = mfg.simulate(roads, policy, flow, n_agents=50, random_seed=0)
    given = {"transition": np.stack([np.eye(2), np.eye(2)[::-1]], 1), "initial": roads.initial}
    given |= {"actions": panel.actions, "horizon": roads.horizon}
    game = mfg.MeanFieldGame(states=panel.space, **given)
    by_labels = mfg.MeanFieldGame(
        states={"state": ["left", "right"]}, types={"size": ["small", "large"]}, **given
    )
    for one in (game, game.replace(temperature=1.0)):
        assert one.space == by_labels.space
        assert one.space.types == ("size",)
