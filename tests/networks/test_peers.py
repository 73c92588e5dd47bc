"""Agents with few neighbours each: exposures, their law, and simulation on the network."""

import networkx as nx
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg

GRAPH = nx.random_regular_graph(3, 150, seed=1)
HORIZON = 8


def table(seed=0, n_times=HORIZON):
    """Return a panel of agents on the graph who go up more where neighbours are high."""
    rng = np.random.default_rng(seed)
    n = GRAPH.number_of_nodes()
    level, rows = rng.integers(0, 3, n), []
    for t in range(n_times):
        high = np.array([np.mean(level[list(GRAPH[i])] == 2) for i in range(n)])
        up = rng.random(n) < 1 / (1 + np.exp(0.5 - 1.5 * high))
        rows += [(i, t, level[i], "up" if up[i] else "down") for i in range(n)]
        moved = np.clip(level + np.where(up, 1, -1), 0, 2)
        level = np.where(rng.random(n) < 0.8, moved, level)
    return pd.DataFrame(rows, columns=["agent", "time", "level", "action"])


def panel_of(frame=None):
    return mfg.Trajectories.from_frame(table() if frame is None else frame, state="level")


BINS = [0.0, 0.2, 0.5, 0.9, 1.0]


def exposed(frame=None, edges=GRAPH, **options):
    arguments = {"of": {"level": 2}, "bins": BINS, "name": "peers"} | options
    return panel_of(frame).exposure(edges, **arguments)


def shares_by_hand(frame, edges):
    """Return the share of each row's neighbours, present at the time, who are at the top."""
    level = frame.set_index(["agent", "time"])["level"]
    shares = []
    for row in frame.itertuples():
        around = [(b, w) for a, b, w in edges if a == row.agent and (b, row.time) in level.index]
        total = sum(w for _, w in around)
        part = sum(w for b, w in around if level[b, row.time] == 2)
        shares.append(part / total if total else np.nan)
    return np.array(shares)


def both_ways(graph):
    pairs = [(a, b, 1.0) for a, b in graph.edges]
    return pairs + [(b, a, w) for a, b, w in pairs]


def test_the_share_of_neighbours_is_that_of_a_loop():
    """In every row, and the label of a bin is its rows' mean share."""
    frame = table()
    panel = exposed(frame)
    shares = shares_by_hand(frame, both_ways(GRAPH))
    found = panel.to_frame().merge(frame.assign(share=shares), on=["agent", "time", "level"])
    bins = np.searchsorted(BINS[1:-1], found["share"])
    means = found.groupby(bins)["share"].mean()
    expected = means.map(lambda m: float(f"{m:.3g}"))
    assert found["peers"].tolist() == expected.iloc[bins].tolist()
    assert list(panel.exposures) == ["peers"]
    assert list(panel.space.coordinates) == ["level", "peers"]


def test_weighted_edges_that_change_and_agents_who_are_absent():
    """Each time has its own edges; absent neighbours do not count."""
    frame = table(n_times=4).query("not (agent % 7 == 0 and time >= 2)")
    rng = np.random.default_rng(5)
    edges = pd.DataFrame(both_ways(GRAPH), columns=["from", "to", "weight"])
    edges["weight"] = rng.uniform(0.5, 2.0, len(edges))
    changing = pd.concat(
        [edges.sample(frac=0.7, random_state=t).assign(time=t) for t in range(4)]
    ).sample(frac=1.0, random_state=9)
    panel = exposed(frame, changing, alone="nobody")
    shares = np.full(len(frame), np.nan)
    for t in range(4):
        here = changing[changing["time"] == t]
        rows = (frame["time"] == t).to_numpy()
        shares[rows] = shares_by_hand(frame[rows], here[["from", "to", "weight"]].to_numpy())
    found = panel.to_frame().merge(frame.assign(share=shares), on=["agent", "time", "level"])
    assert ((found["peers"] == "nobody") == found["share"].isna()).all()
    known = found[found["share"].notna()]
    means = known.groupby(np.searchsorted(BINS[1:-1], known["share"]))["share"].mean()
    codes = np.searchsorted(BINS[1:-1], known["share"])
    assert np.allclose(known["peers"].astype(float), means.loc[codes], atol=5e-4, rtol=5e-3)


def test_those_carried_forward_are_met():
    """An agent who has left in an absorbing state counts for its neighbours ever after."""
    rows = [("a", t, "no", "wait") for t in range(4)] + [
        ("b", 0, "no", "go"),
        ("b", 1, "yes", None),
    ]
    frame = pd.DataFrame(rows, columns=["agent", "time", "law", "action"])
    panel = mfg.Trajectories.from_frame(frame, state="law", absorbing={"law": "yes"})
    edges = pd.DataFrame({"from": ["a", "b"], "to": ["b", "a"]})
    found = panel.exposure(edges, of={"law": "yes"}, bins=[0, 0.5, 1], name="near").to_frame()
    assert found.query("agent == 'a'")["near"].tolist() == [0, 1, 1, 1]


def leaving():
    """Return agents of whom the even ones reach the level 0 and are then carried forward."""
    rows = []
    for k in range(12):
        for t in range(4):
            level = 0 if k % 2 == 0 and t == 2 else 1 + (k + t) % 2
            gone = level == 0
            rows.append((k, t, level, None if gone else ("up", "down")[(k + t) % 2]))
            if gone:
                break
    frame = pd.DataFrame(rows, columns=["agent", "time", "level", "action"])
    return mfg.Trajectories.from_frame(frame, state="level", absorbing={"level": 0})


def test_nobody_returns_from_where_agents_are_carried_forward():
    """The dynamics keep absorbing states, with an exposure and without."""
    panel = leaving()
    plain = panel.estimate_transition(prior_count=0.5).probabilities.values
    assert np.array_equal(plain[0], [[1.0, 0.0, 0.0]] * 2)
    ring = nx.cycle_graph(12)
    exposed_panel = panel.exposure(ring, of={"level": 0}, bins=[-0.1, 0.4, 1.0], name="gone")
    law = mfg.networks.dynamics(exposed_panel).values.reshape(-1, 3, 2, 2, 3, 2).sum(-1)
    assert np.allclose(law[:, 0], [1.0, 0.0, 0.0])
    game = mfg.MeanFieldGame(
        states=exposed_panel.space.coordinates, actions=panel.actions, horizon=panel.horizon,
        transition=mfg.networks.dynamics(exposed_panel),
        initial=exposed_panel.initial_distribution(),
    )  # fmt: skip
    with pytest.raises(ValueError, match="carries 6 agents forward"):
        mfg.networks.simulate(exposed_panel, game, np.full(game.shape, 0.5))


def test_the_order_of_rows_and_edges_changes_nothing():
    frame = table()
    edges = pd.DataFrame(both_ways(GRAPH), columns=["from", "to", "weight"])
    one = exposed(frame, edges)
    other = exposed(frame.sample(frac=1, random_state=1), edges.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(one.to_frame(), other.to_frame())


def test_bins_by_number_hold_about_as_many():
    panel = exposed(bins=2)
    assert len(panel.space.coordinates["peers"]) == 2


def test_the_law_of_an_exposure_is_a_product_of_frequencies():
    """P(s', e' | s, e, a) = P(s' | s, a) P_t(e' | e, s), each with pseudo-counts, by a loop."""
    panel = exposed()
    law = mfg.networks.dynamics(panel, prior_count=0.5)
    frame = panel.to_frame().sort_values(["agent", "time"])
    frame["next"] = frame.groupby("agent")["level"].shift(-1)
    frame["then"] = frame.groupby("agent")["peers"].shift(-1)
    steps = frame.dropna()
    labels = panel.space.coordinates["peers"]
    t, s, e, a = 3, 1, 1, "up"
    own = steps[(steps["level"] == s) & (steps["action"] == a)]
    seen = [x for x in range(3) if ((own["next"] == x).any())]
    around = steps[(steps["level"] == s) & (steps["peers"] == labels[e]) & (steps["time"] == t)]
    for x in range(3):
        for k, label in enumerate(labels):
            p = ((own["next"] == x).sum() + 0.5 * (x in seen)) / (len(own) + 0.5 * len(seen))
            q = ((around["then"] == label).sum() + 0.5) / (len(around) + 0.5 * len(labels))
            here = law.isel(time=t, state=s * len(labels) + e, next_state=x * len(labels) + k)
            assert float(here.sel(action=a)) == pytest.approx(p * q)
    np.testing.assert_allclose(law.sum("next_state"), 1.0)
    pooled = mfg.networks.dynamics(panel, by_time=False)
    assert np.ptp(pooled.values, axis=0).max() == 0.0


def test_contagion_moves_the_rest_of_the_state():
    panel = exposed()
    free = mfg.networks.dynamics(panel).values.reshape(HORIZON - 1, 3, 4, 2, 3, 4).sum(-1)
    bound = mfg.networks.dynamics(panel, contagion=True).values
    bound = bound.reshape(HORIZON - 1, 3, 4, 2, 3, 4).sum(-1)
    assert np.ptp(free, axis=2).max() < 1e-12  # whatever the exposure
    assert np.ptp(bound, axis=2).max() > 0.01


def peers_matter(x):
    up = pyro.sample("up", dist.Normal(0.0, 2.0))
    peers = pyro.sample("peers_weight", dist.Normal(0.0, 2.0))
    return (up + peers * x.peers) * (x.action == "up")


def game_of(panel):
    return mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=panel.horizon,
        transition=mfg.networks.dynamics(panel), initial=panel.initial_distribution(),
    )  # fmt: skip


def test_a_fit_and_draws_of_the_same_agents_on_their_network():
    """Draws have the panel's agents and times, and shares of the network they are on."""
    panel = exposed()
    game = game_of(panel)
    model = mfg.TrajectoryModel(game, peers_matter, panel)
    fit = mfg.mle(model, progressbar=False)
    assert fit.converged
    assert fit.params["peers_weight"] > 0
    drawn = mfg.networks.simulate(panel, game, mfg.policy(model, fit), random_seed=1)
    frame = drawn.to_frame()
    assert frame[["agent", "time"]].equals(panel.to_frame()[["agent", "time"]])
    first = frame["time"] == 0
    assert frame[first]["level"].equals(panel.to_frame()[first]["level"])
    again = mfg.Trajectories.from_frame(
        frame.drop(columns="peers"), state="level", action_labels=panel.actions
    )
    again = again.exposure(GRAPH, of={"level": 2}, bins=BINS, name="peers").to_frame()
    codes = [pd.Series(pd.factorize(f["peers"], sort=True)[0]) for f in (frame, again)]
    assert codes[0].equals(codes[1])
    same = mfg.networks.simulate(panel, game, mfg.policy(model, fit), random_seed=1)
    assert np.array_equal(drawn.state, same.state)
    assert np.array_equal(drawn.action, same.action)


def test_own_moves_of_draws_are_those_of_the_dynamics():
    """A step up succeeds as often as the dynamics say."""
    panel = exposed()
    game = game_of(panel)
    policy = np.zeros(game.shape)
    policy[..., list(panel.actions).index("up")] = 1.0
    n, hits, expected = 0, 0.0, 0.0
    law = np.asarray(mfg.networks.dynamics(panel).sel(action="up")).reshape(-1, 3, 4, 3, 4)
    for seed in range(5):
        drawn = mfg.networks.simulate(panel, game, policy, random_seed=seed).to_frame()
        drawn["next"] = drawn.groupby("agent")["level"].shift(-1)
        steps = drawn[(drawn["level"] == 0) & drawn["next"].notna()]
        n, hits = n + len(steps), hits + (steps["next"] == 1).sum()
        expected = law[0, 0, 0, 1].sum()
    assert hits / n == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / n))


def test_no_equilibrium_is_defined():
    panel = exposed()
    game = game_of(panel)
    with pytest.raises(ValueError, match=r"own few neighbours.*no equilibrium"):
        mfg.TrajectoryModel(game, peers_matter, panel, mean_field="equilibrium")
    model = mfg.TrajectoryModel(game, peers_matter, panel)
    values = {"up": 0.0, "peers_weight": 1.0}
    with pytest.raises(ValueError, match="a counterfactual needs a crowd"):
        mfg.counterfactual(model, values, game.replace(temperature=2.0))


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"of": {"height": 2}}, ValueError, "the coordinates are"),
        ({"of": {"level": 7}}, ValueError, "level = 7; it has"),
        ({"of": ["level"]}, TypeError, "`of` must say"),
        ({"bins": 1}, ValueError, "at least 2"),
        ({"bins": [0.0, 1.0]}, ValueError, "three ascending ends"),
        ({"bins": []}, ValueError, "three ascending ends"),
        ({"bins": [0.0, 0.1, 0.2]}, ValueError, "must hold all shares"),
        ({"name": "level"}, ValueError, "`name` must be new"),
        ({"edges": nx.path_graph(5)}, ValueError, "nobody around"),
        ({"edges": pd.DataFrame({"from": [0, 999], "to": [1, 0]})}, ValueError, "an unknown node"),
        ({"edges": pd.DataFrame({"from": [0], "to": [1], "time": ["may"]})}, ValueError,
         "a time that the panel does not have"),
        ({"edges": pd.DataFrame({"from": [0], "to": [1], "time": [HORIZON + 1]}), "alone": "none"},
         ValueError, f"0 to {HORIZON}"),
        ({"edges": pd.DataFrame({"from": [0], "to": [1], "time": pd.to_datetime(["2020-01-01"])})},
         ValueError, "a time that the panel does not have"),
        ({"edges": pd.DataFrame({"from": ["0"], "to": ["1"]})}, ValueError, "'0' is not 0"),
        ({"edges": pd.DataFrame({"from": [0], "to": [0]})}, ValueError, "drop them$"),
        ({"edges": pd.DataFrame({"from": [], "to": []}), "alone": "none"}, ValueError, "no edge"),
        ({"of": {"level": []}}, ValueError, "no label"),
        ({"of": {"level": "2"}}, ValueError, "level = '2'"),
        ({"name": "density"}, ValueError, "`name` must be new"),
        ({"name": "near by"}, ValueError, "plain Python name"),
        ({"name": 3}, ValueError, "plain Python name"),
        ({"alone": 0.0}, ValueError, "repeats the label 0"),
    ],
)  # fmt: skip
def test_wrong_inputs(change, error, what):
    with pytest.raises(error, match=what):
        exposed(**change)


def test_words_are_not_reckoned_with():
    """A bin for those alone that is a word makes all labels words; a number keeps numbers."""
    few = GRAPH.copy()
    few.remove_edges_from(list(GRAPH.edges(0)))
    worded, numbered = (exposed(edges=few, alone=label) for label in ("none", -1.0))
    assert numbered.space.coordinates["peers"][-1] == -1
    mfg.TrajectoryModel(game_of(numbered), peers_matter, numbered)
    with pytest.raises(TypeError, match=r"x\.peers has words as labels \('none'\)"):
        mfg.TrajectoryModel(game_of(worded), peers_matter, worded)


def test_a_state_that_is_called_so_is_to_be_renamed():
    panel = mfg.Trajectories.from_frame(table().rename(columns={"level": "state"}))
    with pytest.raises(ValueError, match="rename the column before from_frame"):
        panel.exposure(GRAPH, of={"state": 2}, bins=BINS, name="peers")


def test_a_panel_without_exposures():
    panel = panel_of()
    with pytest.raises(ValueError, match=r"panel\.exposure"):
        mfg.networks.dynamics(panel)
    with pytest.raises(ValueError, match=r"panel\.exposure"):
        mfg.networks.simulate(panel, game_of(exposed()), np.ones((HORIZON, 12, 2)) / 2)
