"""Labels decide where an entry goes, at every door that takes an array."""

import itertools

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import mfgppl as mfg
from mfgppl.data.labelled import Order, in_order
from mfgppl.data.space import StateSpace
from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of

PRICES, STOCKS, MOVES = (3, 1), ("low", "high", "none"), ("up", "stay")
SPACE = StateSpace({"price": PRICES, "stock": STOCKS})
ORDER = Order(SPACE, MOVES)
DIMS = ("time", "state", "action")
TABLE = np.random.default_rng(0).random((4, 6, 2))
DIM_ORDERS = list(itertools.permutations(DIMS))


def whole():
    """The table with all its labels, states joined."""
    coords = {"time": range(4), "state": list(SPACE.labels), "action": list(MOVES)}
    return xr.DataArray(TABLE, coords, DIMS)


def long():
    """The table as a Series with a level for each coordinate."""
    index = pd.MultiIndex.from_product(
        [range(4), PRICES, STOCKS, MOVES], names=["time", "price", "stock", "action"]
    )
    return pd.Series(TABLE.ravel(), index)


def shuffled(array):
    """The array with all its labelled dims in another order."""
    rng = np.random.default_rng(1)
    return array.isel({d: rng.permutation(n) for d, n in array.sizes.items()})


FORMS = {
    "states joined": shuffled(whole()),
    "text of labels": shuffled(whole()).assign_coords(time=lambda a: a.time.astype(str)),
    "later times": whole().assign_coords(time=range(7, 11)),
    "a dim for each coordinate": shuffled(long().to_xarray()),
    "levels of a Series": long().sample(frac=1.0, random_state=1),
    "levels in another order": long().reorder_levels(["action", "stock", "time", "price"]),
    "levels without names": long().rename_axis([None] * 4),
    "rows and columns": long().unstack(["stock", "time"]).T,  # noqa: PD010
    "states of tuples": xr.DataArray(
        TABLE, {"state": pd.Index(list(itertools.product(PRICES, STOCKS)), tupleize_cols=False)},
        DIMS,
    )[:, ::-1],
    "levels of a dim": shuffled(long().to_xarray().stack(state=("stock", "price"))),  # noqa: PD013
    "coordinates beside a dim": shuffled(
        long().to_xarray().stack(state=("stock", "price")).reset_index("state")  # noqa: PD013
    ),
    "a dim called otherwise": shuffled(whole()).rename(time="month"),
    "dims without labels": xr.DataArray(TABLE, dims=DIMS),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_labels_put_entries_in_the_games_order(form):
    np.testing.assert_array_equal(in_order("policy", form, DIMS, ORDER), TABLE)


TIMES = {
    "years, five apart": [1990, 1995, 2000, 2005],
    "numbers as text": ["8", "9", "10", "11"],
    "quarters": ["1990Q3", "1990Q4", "1991Q1", "1991Q2"],
    "months": ["1990-11", "1990-12", "1991-01", "1991-02"],
    "Mondays": ["2020-01-06", "2020-01-13", "2020-01-20", "2020-01-27"],
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_times_are_ordered_as_results_call_them(times):
    """Integers and dates, evenly spaced, in whatever order they come."""
    n = len(TABLE)
    form = whole().assign_coords(time=times[:n]).isel(time=slice(None, None, -1))
    np.testing.assert_array_equal(in_order("policy", form, DIMS, ORDER), TABLE)


@pytest.mark.parametrize("dims", DIM_ORDERS)
def test_named_dims_are_transposed(dims):
    np.testing.assert_array_equal(in_order("policy", whole().transpose(*dims), DIMS, ORDER), TABLE)


@pytest.mark.parametrize("given", [TABLE, TABLE.tolist(), torch.tensor(TABLE), None])
def test_what_bears_no_labels_is_as_it_came(given):
    assert in_order("policy", given, DIMS, ORDER) is given


def test_labels_of_a_panel_with_another_order_of_coordinates():
    """A joined label is read as that of the space that it comes from."""
    other = StateSpace({"stock": STOCKS, "price": PRICES})
    values = pd.Series(range(6), SPACE.positions_of(other, whose="it")).sort_index()
    start = xr.DataArray(
        np.arange(6),
        {"state": list(other.labels)},
        ["state"],
        attrs={"coordinates": other.coordinates},
    )
    found = in_order("initial", shuffled(start), ("state",), ORDER)
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (whole().isel(state=slice(5)), r"`it` lacks '1, none' along 'state'"),
        (whole().assign_coords(action=["up", "down"]), r"`it` lacks 'stay' along 'action'"),
        (long().rename({"none": "nil"}), r"`it` lacks 'none' along 'stock'.*'nil'"),
        (whole().mean("time"), r"`it` must have the dims \('time', 'state', 'action'\)"),
        (whole().assign_coords(time=[0, 1, 2, 4]), "`it` has times that do not count up by 1"),
        (whole().assign_coords(time=list("abcd")), "`it` has times that do not count up by 1"),
        (long().iloc[1:], "`it` must have one entry for each combination.*no entry"),
        (pd.concat([long(), long().iloc[:1]]), "`it` must have one entry.*several entries"),
        (xr.concat([whole()] * 2, "action"), "`it` must have one entry.*several entries"),
        (xr.DataArray(TABLE[:, :5], dims=DIMS), "`it` has 5 entries along 'state'; the game has 6"),
    ],
)
def test_labels_that_do_not_fit_are_errors(array, message):
    with pytest.raises(ValueError, match=message):
        in_order("it", array, DIMS, ORDER)


def test_a_table_of_several_arrays_is_refused():
    with pytest.raises(TypeError, match=r"`it` must be one array.*Pick one of a, b"):
        in_order("it", xr.Dataset({"a": 1, "b": 2}), DIMS, ORDER)


def game(**changes):
    rows = np.random.default_rng(2).dirichlet(np.ones(3), size=(3, 2))
    arguments = {
        "states": {"health": ["s", "i", "r"]}, "actions": ["out", "in"], "horizon": 4,
        "transition": rows, "initial": [0.2, 0.3, 0.5],
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


STATES = ["r", "s", "i"]  # another order than the game's


def test_doors_of_the_game_read_pandas():
    """Start, availability, dynamics and features by label."""
    rows = game().transition.numpy()
    index = pd.MultiIndex.from_product([["s", "i", "r"], ["out", "in"]], names=["state", "action"])
    dynamics = pd.DataFrame(rows.reshape(6, 3), index, pd.Index(["s", "i", "r"], name="next_state"))
    allowed = pd.DataFrame([[1, 0], [1, 1], [0, 1]], STATES, ["in", "out"])
    found = game(
        initial=pd.Series([0.5, 0.2, 0.3], STATES),
        transition=dynamics[STATES].iloc[::-1],
        available=allowed,
        features={
            "cost": pd.Series([30.0, 10.0, 20.0], pd.Index(STATES, name="health")),
            "week": pd.Series([3.0, 2.0, 1.0, 0.0], pd.Index([8, 7, 6, 5], name="time")),
        },
    )
    assert found.initial.tolist() == [0.2, 0.3, 0.5]
    np.testing.assert_array_equal(found.transition, rows)
    assert found.available.tolist() == [[True, True], [True, False], [False, True]]
    assert found.features["cost"].ravel().tolist() == [10.0, 20.0, 30.0]
    assert found.features["week"].ravel().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_flows_and_policies_are_read_by_label():
    """A crosstab of a panel, whose columns are in the alphabet's order, is the panel's own flow."""
    world = game()
    policy = np.random.default_rng(3).dirichlet(np.ones(2), size=(4, 3))
    flow = mfg.equilibrium.generate_mean_field(world, torch.tensor(policy)).numpy()
    panel = mfg.simulate(world, policy, flow, n_agents=60, random_seed=1)
    frame = panel.to_frame()
    seen = pd.crosstab(frame.time, frame.health.astype(str), normalize="index")
    assert list(seen.columns) == ["i", "r", "s"]
    reward = mfg.linear_reward(
        {"v": lambda x: x.density * (x.action == "out")}, dist.Normal(0.0, 1.0)
    )
    own = mfg.TrajectoryModel(world, reward, panel).mean_field
    for given in (seen, seen.T, xr.DataArray(seen), seen.stack()):  # noqa: PD013
        model = mfg.TrajectoryModel(world, reward, panel, mean_field=given)
        torch.testing.assert_close(model.mean_field, own, rtol=0, atol=1e-15)
    labelled = xr.DataArray(policy, {"health": ["s", "i", "r"]}, ("time", "health", "action"))
    by_label = labelled.sel(health=["r", "s", "i"]).transpose("action", "health", "time")
    again = mfg.simulate(world, by_label, seen, n_agents=60, random_seed=1)
    plain = mfg.simulate(world, policy, own, n_agents=60, random_seed=1)
    np.testing.assert_array_equal(again.state, plain.state)
    np.testing.assert_array_equal(again.action, plain.action)


STARTS = {("x", "l"): 0.1, ("x", "h"): 0.2, ("y", "l"): 0.3, ("y", "h"): 0.4}


def starts(name):
    """Ten agents of two types whose state is called so, with shares of first states."""
    rows = [pair for pair, share in STARTS.items() for _ in range(round(10 * share))]
    rows = [(i, t, *pair) for i, pair in enumerate(rows) for t in range(3)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "kind", name])
    return frame.assign(action=np.where(frame.agent % 2, "a", "b"))


@pytest.mark.parametrize("name", ["state", "road"])
def test_a_coordinate_called_state_beside_types(name):
    """Of the game of a panel, whether its dynamics are of all agents or by type."""
    panel = mfg.Trajectories.from_frame(starts(name), state=name, types=["kind"])
    start = panel.initial_distribution()
    for by in (None, "kind"):
        found = mfg.MeanFieldGame(
            states={name: ["l", "h"]}, types={"kind": ["x", "y"]}, actions=["a", "b"], horizon=3,
            transition=panel.estimate_transition(prior_count=0.5, by=by), initial=start[::-1],
        )  # fmt: skip
        np.testing.assert_allclose(found.initial, list(STARTS.values()), rtol=1e-12)
        reward = mfg.linear_reward(["density"], dist.Normal(0.0, 1.0))
        model = mfg.TrajectoryModel(found, reward, panel)
        np.testing.assert_allclose(model.mean_field[0].ravel(), list(STARTS.values()), rtol=1e-12)


@pytest.mark.parametrize("name", ["state", "road"])
def test_a_level_called_state_beside_that_of_types_is_the_coordinates(name):
    """Joined labels stand on an axis of their own; beside types the axis has plain ones."""
    space = StateSpace({"kind": ("x", "y"), name: ("l", "h")}, types=("kind",))
    order = Order(space, MOVES)
    levels = pd.Series(STARTS).rename_axis(["kind", name])[::-1]
    joined = xr.DataArray(
        list(STARTS.values())[::-1], {"state": ["y, h", "y, l", "x, h", "x, l"]}, ["state"]
    )
    for form in (levels, levels.unstack(name), levels.unstack(name).T, levels.to_xarray(), joined):  # noqa: PD010
        found = in_order("initial", form, ("state",), order)
        np.testing.assert_array_equal(found, list(STARTS.values()))
    pairs = pd.concat({key: levels * share for key, share in STARTS.items()})
    pairs = pairs.rename_axis(["kind", name, "next_kind", f"next_{name}"])
    found = in_order("it", pairs.sample(frac=1, random_state=1), ("state", "next_state"), order)
    np.testing.assert_allclose(found, np.outer(list(STARTS.values()), list(STARTS.values())))
    with pytest.raises(ValueError, match=f"`it` lacks 'h' along '{name}'"):
        in_order("it", levels.rename({"h": "z"}), ("state",), order)


def test_available_of_an_estimate_is_read_by_label():
    frame = pd.DataFrame({
        "agent": [0, 0, 1, 1, 2, 2], "time": [0, 1] * 3, "state": list("aabbab"),
        "action": ["x", "x", "y", "y", "y", "x"],
    })  # fmt: skip
    panel = mfg.Trajectories.from_frame(frame)
    allowed = pd.DataFrame([[True, False], [True, True]], ["b", "a"], ["y", "x"])
    found = panel.estimate_transition(available=allowed, support="all").probabilities
    assert found.sel(state="b", action="x").values.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="`available` lacks 'a' along 'state'"):
        panel.estimate_transition(available=allowed.rename({"a": "c"}))


def test_draws_with_other_dims_first_are_the_same_draws():
    world = game()
    half = np.full((4, 3, 2), 0.5)
    flow = mfg.equilibrium.generate_mean_field(world, torch.tensor(half))
    panel = mfg.simulate(world, half, flow, n_agents=20, random_seed=1)

    def reward(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return (w * (x.action == "out")[..., None]).sum(-1) * x.density

    model = mfg.TrajectoryModel(world, reward, panel)
    values = xr.DataArray(
        np.random.default_rng(0).normal(size=(2, 3, 2)), dims=("chain", "draw", "w_dim_0")
    )
    program = density_of(model).program
    trees = [
        xr.DataTree.from_dict({"posterior": xr.Dataset({"w": v})})
        for v in (values, values.transpose("w_dim_0", "draw", "chain"))
    ]
    for tree in trees:
        np.testing.assert_array_equal(flat_draws(program, tree), values)
    alone = xr.DataTree.from_dict({"posterior": xr.Dataset({"w": values[0]})})
    np.testing.assert_array_equal(flat_draws(program, alone), values[:1])


def test_features_of_a_reward_are_read_by_label():
    """A labelled feature or tax gives what its function of the state gives."""
    rent = pd.Series([30.0, 10.0, 20.0], pd.Index(STATES, name="health"))
    by_function = {"s": 10.0, "i": 20.0, "r": 30.0}
    x = mfg.RewardInputs(game(), torch.full((4, 3), 1 / 3, dtype=torch.float64))
    right = sum(value * (x.health == label) for label, value in by_function.items())
    paid = mfg.taxed(lambda x: 0.0 * x.density, rent.to_xarray())(x)
    assert torch.equal(paid, -right.expand(4, 3, 1))
    with pyro.poutine.condition(data={"w": torch.tensor(2.0)}):
        earned = mfg.linear_reward({"w": rent}, dist.Normal(0.0, 1.0))(x)
    assert torch.equal(earned, 2.0 * right)
