"""Networks between types: their forms, what agents meet through them, and faults."""

import networkx as nx
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
import xarray as xr
from games import ROUNDING, random_rows

import mfgppl as mfg
from mfgppl.density.of_model import density_of

C, S, A, T = 5, 3, 2, 4
CITIES = ["oslo", "bergen", "molde", "tromso", "bodo"]
EDGES = pd.DataFrame(
    [
        ("oslo", "bergen", 2.0, 300.0), ("bergen", "oslo", 1.0, 300.0),
        ("oslo", "molde", 0.5, 400.0), ("molde", "oslo", 1.0, 400.0),
        ("molde", "bergen", 3.0, 200.0), ("tromso", "bodo", 1.0, 320.0),
        ("bodo", "tromso", 1.5, 320.0), ("bodo", "oslo", 0.25, 820.0),
    ],
    columns=["from", "to", "weight", "km"],
)  # fmt: skip
TABLES = random_rows(71, S, A, S)
INITIAL = random_rows(72, C * S)
MASS = INITIAL.reshape(C, S).sum(1)
TRUTH = {"pay": 0.5, "crowding": 1.5}
FLOW = torch.ones(T, C * S, dtype=torch.float64)


def weights(labels=CITIES):
    """Return the weights as a table whose rows see columns."""
    table = pd.DataFrame(0.0, labels, labels)
    for row in EDGES.itertuples(index=False):
        table.loc[row[0], row[1]] = row[2]
    return table


def agent(x):
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    return pay * x.state * (x.action == "b") - crowding * x.density * x.state


def game(meets, **changes):
    arguments = {
        "states": range(S), "actions": ["a", "b"], "types": {"city": CITIES}, "horizon": T,
        "transition": TABLES, "initial": INITIAL, "meets": meets, "discount": 0.9,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def flow_of(world, reward=agent, parameters=TRUTH):
    return mfg.solve_equilibrium(
        world, reward, parameters=parameters, tolerance=1e-12, throw=True
    ).value.mean_field


def by_hand(normalise):
    """Return the exposure matrix, written out from the weights and the masses."""
    matrix = weights().to_numpy() * MASS
    if normalise:
        matrix /= matrix.sum(1, keepdims=True)
    return pd.DataFrame(matrix, CITIES, CITIES)


@pytest.mark.parametrize("normalise", ["rows", None])
@pytest.mark.parametrize("changes", [{}, {"joint": True}])
def test_agents_meet_neighbours_by_their_numbers(normalise, changes):
    """The equilibrium is that of the exposure matrix written out by hand."""
    network = mfg.Network(EDGES, normalise=normalise)
    ours = flow_of(game(network, **changes))
    assert torch.allclose(ours, flow_of(game(by_hand(normalise), **changes)), atol=ROUNDING)


def libpysal_forms():
    from libpysal.graph import Graph
    from libpysal.weights import W

    table = EDGES.set_index(["from", "to"])["weight"].rename_axis(["focal", "neighbor"])
    neighbours = EDGES.groupby("from")["to"].apply(list).to_dict()
    values = EDGES.groupby("from")["weight"].apply(list).to_dict()
    return {"Graph": Graph(table), "W": W(neighbours, values, silence_warnings=True)}


def forms():
    table = weights()
    sparse = scipy.sparse.coo_array(table.to_numpy())
    array = xr.DataArray(table.to_numpy(), dims=("one", "other"), coords=[CITIES, CITIES])
    graph = nx.from_pandas_edgelist(EDGES, "from", "to", "weight", create_using=nx.DiGraph)
    return {
        "shuffled": mfg.Network(EDGES.sample(frac=1.0, random_state=1)),
        "matrix": mfg.Network(table),
        "DataArray": mfg.Network(array),
        "sparse": mfg.Network(sparse, labels=CITIES),
        "networkx": mfg.Network(graph),
        "index": mfg.Network(EDGES.set_index(["from", "to"])),
        **{name: mfg.Network(form) for name, form in libpysal_forms().items()},
    }


@pytest.mark.parametrize(
    "form", ["shuffled", "matrix", "DataArray", "sparse", "networkx", "index", "Graph", "W"]
)
def test_all_forms_are_the_same_network(form):
    """Whatever form and order, the same agents meet with the same weights."""
    expected = EDGES.drop(columns="km").sort_values(["from", "to"]).reset_index(drop=True)
    found = forms()[form].to_frame()[["from", "to", "weight"]]
    found = found.sort_values(["from", "to"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_an_undirected_graph_counts_both_ways():
    graph = nx.Graph([("a", "b", {"weight": 2.0, "km": 7.0}), ("b", "c", {"weight": 1.0, "km": 3})])
    network = mfg.Network(graph)
    pairs = {(r[0], r[1]): (r[2], r[3]) for r in network.to_frame().itertuples(index=False)}
    assert pairs == {
        ("a", "b"): (2.0, 7.0), ("b", "a"): (2.0, 7.0),
        ("b", "c"): (1.0, 3.0), ("c", "b"): (1.0, 3.0),
    }  # fmt: skip


def test_no_order_changes_a_number():
    """Rows of the edges and of the panel, and labels of the types, in any order."""
    network = mfg.Network(EDGES)
    world = game(network)
    played = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True).value
    panel = mfg.simulate(world, played.policy, played.mean_field, n_agents=300, random_seed=1)
    frame = panel.to_frame()
    order = ["molde", "bodo", "oslo", "tromso", "bergen"]
    place = np.concatenate([np.arange(S) + CITIES.index(city) * S for city in order])
    other = game(
        mfg.Network(EDGES.sample(frac=1.0, random_state=3), isolates=False),
        types={"city": order}, initial=INITIAL[place],
    )  # fmt: skip
    values = []
    for this, rows, labels in ((world, frame, CITIES), (other, frame.iloc[::-1], order)):
        read = mfg.Trajectories.from_frame(
            rows, types=["city"], type_labels={"city": labels}, state_labels={"state": range(S)}
        )
        for treatment in ("empirical", "equilibrium"):
            model = mfg.TrajectoryModel(this, agent, read, mean_field=treatment)
            value, slope = density_of(model).evaluator(prior=1.0, jacobian=1.0)(np.array([0.4, 1]))
            values.append([value, *slope])
    # the flow in equilibrium is solved to 1e-10
    np.testing.assert_allclose(values[0], values[2], rtol=1e-11)
    np.testing.assert_allclose(values[1], values[3], rtol=1e-7)


def test_own_crowds_blocks_and_everyone_are_networks():
    """The identity is one's own crowd, blocks are regions, the complete network is everyone."""
    identity = mfg.Network(pd.DataFrame(np.eye(C), CITIES, CITIES), self_loops=True)
    complete = mfg.Network(pd.DataFrame(1.0, CITIES, CITIES), self_loops=True)
    assert torch.allclose(flow_of(game(identity)), flow_of(game("city")), atol=ROUNDING)
    assert torch.allclose(flow_of(game(complete)), flow_of(game("everyone")), atol=ROUNDING)
    blocks = pd.DataFrame(np.kron(np.eye(2), np.ones((2, 2))), list("abcd"), list("abcd"))
    four = {"types": {"region": ["north", "south"], "size": ["small", "large"]},
            "initial": random_rows(73, 4 * S)}  # fmt: skip
    both = pd.MultiIndex.from_product([["north", "south"], ["small", "large"]])
    of_both = mfg.Network(
        blocks.set_axis(list(both)).T.set_axis(list(both)),
        of=["region", "size"], self_loops=True,
    )  # fmt: skip
    of_region = mfg.Network(
        pd.DataFrame(np.eye(2), ["north", "south"], ["north", "south"]),
        of="region", self_loops=True,
    )  # fmt: skip
    regions = flow_of(game("region", **four))
    assert torch.allclose(flow_of(game(of_both, **four)), regions, atol=ROUNDING)
    assert torch.allclose(flow_of(game(of_region, **four)), regions, atol=ROUNDING)


def test_a_network_of_regions_whose_agents_differ_in_size():
    """All agents of a neighbouring region are met, whatever their size."""
    types = {"size": ["small", "large"], "city": CITIES}
    initial = random_rows(74, 2 * C * S)
    mass = initial.reshape(2 * C, S).sum(1)
    labels = [f"{size}, {city}" for size in types["size"] for city in CITIES]
    table = np.tile(weights().to_numpy(), (2, 2)) * mass
    table /= table.sum(1, keepdims=True)
    changes = {"types": types, "initial": initial}
    ours = flow_of(game(mfg.Network(EDGES, of="city"), **changes))
    by_cells = flow_of(game(pd.DataFrame(table, labels, labels), **changes))
    assert torch.allclose(ours, by_cells, atol=ROUNDING)


def ring(n):
    """Return a ring of n nodes, each of which sees the next two."""
    ends = [(k, (k + step) % n, 1.0 / step) for k in range(n) for step in (1, 2)]
    return pd.DataFrame(ends, columns=["from", "to", "weight"])


def reads_much(x):
    """Read shares of all that are met, of some, and of those with one's own label."""
    near, own = x.among(size="large").density, x.share(state=1, within=["size", "state"])
    return -x.density * x.state - near * (x.action == "b") - 0.5 * own - 0.3 * x.expect("state")


def test_few_links_are_as_good_as_a_whole_table():
    """A large ring is kept by its links, and gives what the exposure matrix gives."""
    n = 160
    types = {"place": range(n), "size": ["small", "large"]}
    initial = random_rows(75, n * 2 * S)
    cells = pd.MultiIndex.from_product(types.values())
    table = np.zeros((2 * n, 2 * n))
    for a, b, w in ring(n).itertuples(index=False):
        rows, columns = cells.get_locs([a]), cells.get_locs([b])
        table[np.ix_(rows, columns)] = w
    table *= initial.reshape(2 * n, S).sum(1)
    labels = [f"{place}, {size}" for place, size in cells]
    changes = {"types": types, "initial": initial, "horizon": 3}
    network = mfg.Network(ring(n), of="place", normalise=None)
    kept = game(network, **changes)
    assert kept.meets.weights.ndim == 1  # by links
    whole = game(pd.DataFrame(table, labels, labels), **changes)
    gives = [flow_of(world, lambda x: -x.density * x.state, None) for world in (kept, whole)]
    assert torch.allclose(*gives, atol=ROUNDING)


def test_parts_of_neighbours_by_links_and_by_the_table():
    """`among` and `within` give the same whether links or the whole table are kept."""
    n = 160
    types = {"place": range(n), "size": ["small", "large"]}
    changes = {"types": types, "initial": random_rows(77, n * 2 * S), "horizon": 2}
    by_links = game(mfg.Network(ring(n), of="place"), **changes)
    table = pd.DataFrame(by_links.meets.matrix.toarray()[:, ::2] > 0, range(n), range(n))
    weight = by_links.meets.matrix.toarray()[:, ::2] * table.to_numpy()
    filled = weight + 1e-300 * (weight == 0)  # all pairs have an edge, of which most weigh nothing
    full = mfg.Network(pd.DataFrame(filled, range(n), range(n)), of="place", self_loops=True)
    by_table = game(full, **changes)
    assert by_links.meets.weights.ndim == 1
    assert by_table.meets.weights.ndim == 2
    flow = torch.from_numpy(random_rows(78, 2, n * 2 * S))
    ours, theirs = (reads_much(mfg.RewardInputs(world, flow)) for world in (by_links, by_table))
    assert torch.allclose(ours, theirs, atol=ROUNDING)


def faraway(x):
    """Neighbours count less the farther they are."""
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    decay = pyro.sample("decay", dist.LogNormal(0.0, 0.5))
    met = x.neighbours.weighted(torch.exp(-decay * x.neighbours.edge("km") / 300))
    return pay * x.state * (x.action == "b") - crowding * met.density * x.state


@pytest.mark.parametrize("normalise", ["rows", None])
def test_weights_that_are_estimated(normalise):
    """They are those of a network with such weights, in value and gradient, coupled too."""
    world = game(mfg.Network(EDGES, normalise=normalise))
    truth = TRUTH | {"decay": 1.3}
    known = EDGES.assign(weight=EDGES["weight"] * np.exp(-1.3 * EDGES["km"] / 300))
    fixed = game(mfg.Network(known, normalise=normalise))
    ours = flow_of(world, faraway, truth)
    assert torch.allclose(ours, flow_of(fixed), atol=ROUNDING)
    played = mfg.solve_equilibrium(world, faraway, parameters=truth, throw=True).value
    panel = mfg.simulate(world, played.policy, played.mean_field, n_agents=500, random_seed=2)
    theta, step = np.array([0.4, 1.2, 0.1]), 1e-5
    for treatment, tolerance in (("empirical", 1e-6), ("equilibrium", 1e-5)):
        model = mfg.TrajectoryModel(world, faraway, panel, mean_field=treatment)
        evaluate = density_of(model).evaluator(prior=1.0, jacobian=1.0)
        slope = evaluate(theta)[1].copy()
        differences = [
            (evaluate(theta + step * e)[0] - evaluate(theta - step * e)[0]) / (2 * step)
            for e in np.eye(3)
        ]
        np.testing.assert_allclose(slope, differences, rtol=tolerance, atol=1e-4)


def test_everyone_beside_neighbours():
    """`x.everyone` is the whole crowd, whomever one meets."""
    flow = torch.from_numpy(random_rows(79, T, C * S))
    x = mfg.RewardInputs(game(mfg.Network(EDGES)), flow)
    shared = mfg.RewardInputs(game("everyone"), flow)
    assert torch.allclose(x.everyone.density, shared.density, atol=ROUNDING)
    assert torch.allclose(x.neighbours.density, x.density, atol=ROUNDING)


def test_another_graphon_is_another_world():
    """A counterfactual may change the graphon: its flow is the other game's equilibrium."""
    network = mfg.networks.graphon("ranked_attachment", positions=4)
    world = game(network, types={"position": network.labels}, initial=random_rows(84, 4 * S))
    other = world.replace(meets=mfg.networks.graphon("erdos_renyi", positions=4, p=0.9))
    played = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True).value
    panel = mfg.simulate(world, played.policy, played.mean_field, n_agents=300, random_seed=3)
    model = mfg.TrajectoryModel(world, agent, panel)
    answer = mfg.counterfactual(model, TRUTH, other, n_starts=1, progressbar=False)
    assert answer.changes == ("meets",)
    found = (
        answer.draws["flow"].sel(world="changed").isel(draw=0).transpose("time", "type", "state")
    )
    np.testing.assert_allclose(found.values.reshape(T, -1), flow_of(other), atol=1e-8)


def test_a_world_without_a_link_or_a_hub():
    """The counterfactual knows what changed, and nobody meets through what is gone."""
    network = mfg.Network(EDGES)
    world = game(network)
    played = mfg.solve_equilibrium(world, agent, parameters=TRUTH, throw=True).value
    panel = mfg.simulate(world, played.policy, played.mean_field, n_agents=500, random_seed=3)
    fit = mfg.mle(mfg.TrajectoryModel(world, agent, panel), progressbar=False)
    closed = network.without(edges=[("tromso", "bodo")])
    hub = network.without(nodes=["oslo"])
    assert closed.n_edges == 7
    assert hub.n_edges == 3
    assert "tromso" in closed.labels
    assert "oslo" in hub.labels
    for other in (closed, hub):
        answer = mfg.counterfactual(
            mfg.TrajectoryModel(world, agent, panel), fit, world.replace(meets=other),
            n_starts=1, progressbar=False,
        )  # fmt: skip
        assert answer.changes == ("meets",)
        met = mfg.RewardInputs(world.replace(meets=other), played.mean_field).mean_field
        gone = CITIES.index("tromso") if other is closed else CITIES.index("oslo")
        assert (met[gone] == 0).all()


FAULTS = [
    ({"from": ["a", None], "to": ["b", "a"]}, "an end is missing"),
    ({"from": ["a", "b"], "to": ["b", "a"], "weight": [1.0, -1.0]}, "a negative weight"),
    ({"from": ["a", "b"], "to": ["b", "a"], "weight": [1.0, np.nan]}, "no finite number"),
    ({"from": ["a", "a"], "to": ["b", "b"]}, "an edge that comes twice"),
    ({"from": ["a", "b"], "to": ["a", "a"]}, "a node that sees itself"),
    ({"from": ["a", "b"], "to": ["b", "a"], "km": [1.0, np.nan]}, "'km' is missing"),
    ({"from": [], "to": []}, "no edge"),
    ({"from": ["a"], "to": ["b"], "weight": [0.0]}, "no edge of a weight above zero"),
]


@pytest.mark.parametrize(("table", "what"), FAULTS)
def test_faults_of_edges(table, what):
    with pytest.raises(mfg.exceptions.DataError, match=what) as caught:
        mfg.Network(pd.DataFrame(table))
    assert str(caught.value).startswith("the network has 1 fault")


def test_faults_are_told_together():
    table = pd.DataFrame({"from": ["a", "a", "a"], "to": ["a", "b", "b"], "weight": [1, 1, -1]})
    with pytest.raises(mfg.exceptions.DataError) as caught:
        mfg.Network(table)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (lambda: mfg.Network(EDGES.replace("oslo", "rome")), "'rome'.*the labels are oslo"),
        (lambda: mfg.Network(EDGES.query("`from` != 'molde'")), "sees nobody.*molde"),
        (lambda: mfg.Network(EDGES, of="town"), "must name a type.*'city'"),
    ],
)
def test_networks_that_do_not_fit_the_types(network, what):
    with pytest.raises(ValueError, match=f"(?s){what}"):
        game(network())


def test_numbers_as_text_are_said_to_be():
    world = {"types": {"city": [1, 2]}, "initial": random_rows(80, 2 * S)}
    with pytest.raises(mfg.exceptions.DataError, match="'1' is not 1: give both the same kind"):
        game(mfg.Network(pd.DataFrame({"from": ["1", "2"], "to": ["2", "1"]})), **world)


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: mfg.Network(np.eye(3)), TypeError, "must be a table.*got ndarray"),
        (lambda: mfg.Network("edges.csv"), TypeError, "got str"),
        (lambda: mfg.Network(pd.DataFrame({"a": [1]})), ValueError, "columns 'from' and 'to'"),
        (lambda: mfg.Network(scipy.sparse.eye(3)), ValueError, "needs `labels`"),
        (lambda: mfg.Network(EDGES, normalise="columns"), ValueError, "'rows' or None"),
        (lambda: mfg.Network(EDGES, normalise=pd.Series(["rows"])), ValueError, "'rows' or None"),
        (lambda: mfg.Network(EDGES, normalize=None), TypeError, "did you mean `normalise`"),
        (lambda: mfg.Network(EDGES, self_loops=1), TypeError, "`self_loops` must be True or False"),
        (lambda: mfg.Network(EDGES.rename(columns={"weight": "weights"})), ValueError,
         "did you mean 'weight'"),
        (lambda: mfg.Network(EDGES.assign(weight=1j)), TypeError, "numbers in the column"),
        (lambda: mfg.Network(pd.concat([EDGES, EDGES["weight"]], axis=1)), ValueError, "twice"),
        (lambda: mfg.Network(EDGES).without(nodes="oslo"), TypeError, r"as \['oslo'\]"),
        (lambda: mfg.Network(EDGES).without(edges=("oslo", "molde")), TypeError, "list of pairs"),
        (lambda: game(EDGES), TypeError, "mfgppl.Network"),
        (lambda: game(nx.path_graph(3)), TypeError, "mfgppl.Network"),
        (lambda: mfg.Network(EDGES, of=3), TypeError, "`of` must be"),
        (lambda: mfg.Network(EDGES.assign(weight="big")), TypeError, "numbers in the column"),
        (lambda: mfg.Network(EDGES).without(nodes=["osl"]), ValueError, "did you mean `oslo`"),
        (lambda: mfg.Network(EDGES).without(edges=[("oslo", "bodo")]), ValueError, "no edge from"),
        (lambda: game(mfg.Network(EDGES), types=None, initial=np.ones(S) / S),
         ValueError, "declare types"),
        (lambda: mfg.RewardInputs(game("everyone"), FLOW).neighbours,
         ValueError, "meets=mfg.Network"),
        (lambda: mfg.RewardInputs(game(mfg.Network(EDGES)), FLOW).neighbours.edge("miles"),
         ValueError, "weight, km"),
        (lambda: mfg.RewardInputs(game(mfg.Network(EDGES)), FLOW).neighbours
         .weighted(torch.ones(3)), TypeError, "each of the 8 edges"),
    ],
)  # fmt: skip
def test_wrong_inputs(call, error, what):
    with pytest.raises(error, match=what):
        call()


def test_isolates_meet_nobody_where_that_is_said():
    world = game(mfg.Network(EDGES.query("`from` != 'molde'"), isolates=True))
    x = mfg.RewardInputs(world, torch.from_numpy(random_rows(81, T, C * S)))
    assert (x.mean_field[CITIES.index("molde")] == 0).all()
    assert (x.expect("state")[CITIES.index("molde")] == 0).all()


def test_kinds_that_nobody_sees_meet_through_the_network():
    """Kinds become types beside those that the network joins."""

    def two_kinds(x):
        cost = pyro.sample("cost", dist.HalfNormal(1.0).expand([2]).to_event(1))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.3, 0.7])))
        return -cost[kind] * (x.action == "b") - 2 * x.density * x.state

    world = game(mfg.Network(EDGES))
    values = {"cost": [0.2, 1.0]}
    typed, of_types = mfg.kinds.as_types(world, two_kinds, values)
    assert typed.meets.network.of == ("city",)
    joint = flow_of(typed, of_types, None).reshape(T, 2, C * S).sum(1)

    def same(x):
        return -0.5 * (x.action == "b") - 2 * x.density * x.state

    alike = mfg.kinds.as_types(world, two_kinds, {"cost": [0.5, 0.5]})
    pooled = flow_of(*alike, None).reshape(T, 2, C * S).sum(1)
    assert torch.allclose(pooled, flow_of(world, same, None), atol=ROUNDING)
    assert (joint - pooled).abs().max() > 0.01


@pytest.mark.parametrize("normalise", ["rows", None])
def test_unseen_kinds_in_the_crowd_of_a_network(normalise):
    """With the equilibrium inside, slopes are differences, in the shares of kinds too."""

    def two_kinds(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
        cost = pyro.sample("cost", dist.HalfNormal(1.0).expand([2]).to_event(1))
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return -cost[kind] * (x.action == "b") - crowding * x.density * x.state

    world = game(mfg.Network(EDGES, normalise=normalise))
    values = {"crowding": 2.0, "cost": [0.2, 1.0], "share": [0.3, 0.7]}
    typed, program = mfg.kinds.as_types(world, two_kinds, values)
    played = mfg.solve_equilibrium(typed, program, throw=True).value
    panel = mfg.simulate(typed, played.policy, played.mean_field, n_agents=200, random_seed=1)
    model = mfg.TrajectoryModel(world, two_kinds, panel.drop_type("kind"), mean_field="equilibrium")
    density = density_of(model)
    evaluate = density.evaluator(prior=1.0, jacobian=1.0)
    moved = {"crowding": np.array(1.7), "cost": np.array([0.3, 0.9]), "share": np.array([0.4, 0.6])}
    theta, step = density.program.free(moved), 1e-5
    slope = evaluate(theta)[1].copy()
    differences = [
        (evaluate(theta + step * e)[0] - evaluate(theta - step * e)[0]) / (2 * step)
        for e in np.eye(len(theta))
    ]
    np.testing.assert_allclose(slope, differences, rtol=1e-5, atol=1e-5)
