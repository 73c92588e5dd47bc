"""What a network can show, before any fit."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from games import random_rows

import mfgppl as mfg


def test_numbers_of_a_network_by_hand():
    """Nodes a and b see each other, b sees c, c sees d; e is alone, but for itself."""
    table = pd.DataFrame(
        {"from": list("abbce"), "to": list("bacde"), "weight": [1.0, 2.0, 2.0, 1.0, 1.0]}
    )
    found = mfg.networks.audit(mfg.Network(table, self_loops=True, isolates=True, labels="abcde"))
    assert (found.n_nodes, found.n_edges) == (5, 5)
    assert found.isolates == ("e",)
    assert found.components == (4, 1)
    assert found.reciprocity == 0.5  # two of the four edges between nodes go both ways
    assert found.degrees["sees"].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0]
    # paths a-b-c, b-c-d, none of whose ends an edge joins; a-b-a and b-a-b lead back
    assert found.intransitive == 1.0
    assert "without an edge to another: 1 (e)" in found.verdict
    assert "2 parts" not in found.verdict
    assert str(found) == found.verdict
    assert found.summary()["isolates"] == 1


def test_independence_is_that_of_the_matrices():
    """Rank and condition are those of I, G and G^2 as vectors of length one."""
    graph = nx.erdos_renyi_graph(30, 0.15, seed=3)
    network = mfg.Network(graph, isolates=True)
    found = mfg.networks.audit(network)
    once = network.to_scipy().toarray()
    once = once / np.maximum(once.sum(1, keepdims=True), 1e-300)
    three = np.stack([m.ravel() for m in (np.eye(30), once, once @ once)])
    sizes = np.linalg.svd(three / np.linalg.norm(three, axis=1, keepdims=True))[1]
    assert found.rank == 3
    assert found.condition == pytest.approx(sizes[0] / sizes[-1], rel=1e-8)
    direct = (once > 0).astype(int)
    paths = direct @ direct
    np.fill_diagonal(paths, 0)
    closed = (paths * direct).sum() / paths.sum()
    assert found.intransitive == pytest.approx(1 - closed)


@pytest.mark.parametrize(
    ("blocks", "rank"), [([4, 4, 4], 2), ([1, 1, 1], 1), ([2, 3, 4], 2)]
)  # G is idempotent where all of a group meet, themselves among them
def test_groups_in_which_all_meet_do_not_separate(blocks, rank):
    table = pd.DataFrame(np.zeros((sum(blocks), sum(blocks))))
    start = 0
    for size in blocks:
        table.iloc[start : start + size, start : start + size] = 1.0
        start += size
    found = mfg.networks.audit(mfg.Network(table, self_loops=True))
    assert found.rank == rank
    assert found.condition == np.inf
    assert "linearly dependent" in found.verdict


def test_the_spread_of_what_is_met():
    """Deviations of the shares met, at a time and over all, by a loop over cells and times."""
    labels = list("abcd")
    table = pd.DataFrame(random_rows(51, 4, 4) * (1 - np.eye(4)), labels, labels)
    network = mfg.Network(table)
    game = mfg.MeanFieldGame(
        types={"place": labels}, states=["low", "high"], actions=["x", "y"], horizon=4,
        transition=random_rows(52, 2, 2, 2), initial=random_rows(53, 8), meets=network,
    )  # fmt: skip
    policy = np.full((4, 8, 2), 0.5)
    flow = mfg.equilibrium.generate_mean_field(game, policy)
    panel = mfg.simulate(game, policy, flow, n_agents=200, random_seed=1)
    found = mfg.networks.audit(network, panel).exposure
    shares = panel.mean_field().reshape(4, 4, 2)  # (time, place, state)
    rows = []
    for t in range(4):
        for c in range(4):
            met = sum(table.iloc[c, k] * shares[t, k] for k in range(4))
            rows.append((t, shares[t, c].sum(), (met / met.sum())[1]))
    frame = pd.DataFrame(rows, columns=["t", "w", "high"])
    mean = np.average(frame["high"], weights=frame["w"])
    each = frame.groupby("t").apply(
        lambda g: np.average((g["high"] - np.average(g["high"], weights=g["w"])) ** 2,
                             weights=g["w"]), include_groups=False
    )  # fmt: skip
    within = np.sqrt(each.mean())  # all times have as many agents
    row = found.loc[("state", "high")]
    assert row["mean"] == pytest.approx(mean)
    assert row["within a time"] == pytest.approx(within)
    assert row["over all"] == pytest.approx(
        np.sqrt(np.average((frame["high"] - mean) ** 2, weights=frame["w"]))
    )


def test_one_crowd_leaves_nothing_beside_effects_of_time():
    labels = list("abc")
    complete = mfg.Network(pd.DataFrame(1.0, labels, labels), self_loops=True)
    game = mfg.MeanFieldGame(
        types={"place": labels}, states=["low", "high"], actions=["x"], horizon=5,
        transition=random_rows(54, 2, 1, 2), initial=random_rows(55, 6), meets=complete,
    )  # fmt: skip
    policy = np.ones((5, 6, 1))
    flow = mfg.equilibrium.generate_mean_field(game, policy)
    panel = mfg.simulate(game, policy, flow, n_agents=300, random_seed=1)
    found = mfg.networks.audit(complete, panel)
    assert (found.exposure["within a time"] < 1e-12).all()
    assert "almost nothing of the crowd is left" in found.verdict


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(("a",), "`network` must be a Network"), ((nx.path_graph(3),), "`network` must be a Network")],
)
def test_wrong_inputs(arguments, what):
    with pytest.raises(TypeError, match=what):
        mfg.networks.audit(*arguments)


def test_a_panel_that_is_none():
    network = mfg.Network(nx.path_graph(3))
    with pytest.raises(TypeError, match="`panel` must be a Trajectories"):
        mfg.networks.audit(network, panel=pd.DataFrame())
