"""Counts, shares and frequencies of panels."""

import itertools

import numpy as np
import pandas as pd
import pytest
from data.panels import ACTIONS, LABELS, LAST, STATES, panels
from games import ROUNDING
from hypothesis import given, settings
from hypothesis import strategies as st

import mfgppl as mfg
from mfgppl.data.space import StateSpace


def runs_of(frame: pd.DataFrame) -> list[list[tuple]]:
    """Return each run of consecutive times of one agent as a list of (time, state, action)."""
    runs = []
    for agent in sorted(set(frame.agent)):
        rows = [r[1:] for r in frame.itertuples(index=False) if r.agent == agent]
        previous = None
        for time, state, action in sorted(rows, key=lambda r: r[0]):
            if previous is None or time != previous + 1:
                runs.append([])
            runs[-1].append((time, state, None if pd.isna(action) else action))
            previous = time
    return runs


@settings(max_examples=60, deadline=None)
@given(panels())
def test_all_counts_equal_a_loop_over_rows(frame):
    """Decisions, starts and both kinds of ends agree with plain Python on unbalanced panels."""
    panel = mfg.Trajectories.from_frame(frame, gaps="split", **LABELS)
    T, S, A = LAST + 1, len(STATES), len(ACTIONS)
    actions, unseen = np.zeros((T, S, A)), np.zeros((T, S, A))
    starts, seen = np.zeros((T, S)), np.zeros((T, S))
    for run in runs_of(frame):
        for time, state, action in run:
            if action is not None:
                actions[time, state, ACTIONS.index(action)] += 1
        time, state, action = run[0]
        if action is not None:
            starts[time, state] += 1
        time, state, action = run[-1]
        if action is None and len(run) > 1:
            seen[time, state] += 1
        if action is not None and time < LAST:
            unseen[time, state, ACTIONS.index(action)] += 1
    assert panel.horizon == T
    for found, expected in zip(panel.counts, (actions, starts, seen, unseen), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert panel.n_trajectories == len(runs_of(frame))
    assert len(set(panel.labels.tolist())) == panel.n_trajectories


@settings(max_examples=40, deadline=None)
@given(panels(), st.sampled_from([0.0, 0.5, 2.0]))
def test_the_mean_field_is_the_share_of_those_observed(frame, prior_count):
    """Each row is the (smoothed) share of the agents seen then, acting or not, and sums to 1."""
    panel = mfg.Trajectories.from_frame(frame, gaps="split", **LABELS)
    shares = panel.mean_field(prior_count=prior_count)
    for time in range(LAST + 1):
        here = frame[frame.time == time]
        for state in STATES:
            n = int((here.state == state).sum())
            expected = (n + prior_count) / (len(here) + prior_count * len(STATES))
            assert shares[time, state] == pytest.approx(expected, abs=ROUNDING)
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=ROUNDING)


def followed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the observed steps as rows time, state, action, next."""
    steps = [
        (time, state, action, following[1])
        for run in runs_of(frame)
        for (time, state, action), following in itertools.pairwise(run)
    ]
    return pd.DataFrame(steps, columns=["time", "state", "action", "next"])


def crosstab(steps: pd.DataFrame) -> np.ndarray:
    """Return how often each (state, action) leads to each next state, by pandas."""
    pairs = pd.MultiIndex.from_product([STATES, ACTIONS])
    table = pd.crosstab([steps.state, steps.action], steps.next)
    table = table.reindex(index=pairs, columns=STATES, fill_value=0)
    return table.to_numpy(float).reshape(len(STATES), len(ACTIONS), len(STATES))


@settings(max_examples=30, deadline=None)
@given(panels(), st.sampled_from([0.25, 1.0]))
def test_the_pooled_transition_is_a_smoothed_crosstab(frame, prior_count):
    """Pooled frequencies are those of pandas' crosstab plus the prior count."""
    panel = mfg.Trajectories.from_frame(frame, gaps="split", **LABELS)
    estimate = panel.estimate_transition(prior_count=prior_count, support="all")
    counts = crosstab(followed(frame))
    smoothed = counts + prior_count
    np.testing.assert_array_equal(estimate.counts.values, counts)
    expected = smoothed / smoothed.sum(-1, keepdims=True)
    np.testing.assert_allclose(estimate.probabilities.values, expected, atol=ROUNDING)
    assert estimate.probabilities.dims == ("state", "action", "next_state")


@settings(max_examples=30, deadline=None)
@given(panels())
def test_the_transition_by_time_is_a_crosstab_a_step(frame):
    """With `by_time` each step has frequencies of its own, T-1 of them."""
    panel = mfg.Trajectories.from_frame(frame, gaps="split", **LABELS)
    estimate = panel.estimate_transition(prior_count=0.5, by_time=True, support="all")
    steps = followed(frame)
    assert estimate.probabilities.sizes["time"] == LAST
    for time in range(LAST):
        smoothed = crosstab(steps[steps.time == time]) + 0.5
        expected = smoothed / smoothed.sum(-1, keepdims=True)
        np.testing.assert_allclose(estimate.probabilities[time].values, expected, atol=ROUNDING)


def shops(frame: pd.DataFrame, **options) -> mfg.Trajectories:
    """Read the fixture `visits`, stock low before high."""
    columns = {"agent": "shop", "time": "month", "state": ["price", "stock"], "action": "move"}
    labels = {"state_labels": {"stock": ["low", "high"]}, "action_labels": ["raise", "hold"]}
    return mfg.Trajectories.from_frame(frame, **columns, **labels, **options)


def test_counts_of_five_shops_by_hand(visits):
    """Decisions, starts and ends of the five shops are those read off the table."""
    counts = shops(visits).counts
    # states 0: (1, low), 1: (1, high), 2: (2, low), 3: (2, high); actions 0: raise, 1: hold
    actions = np.zeros((3, 4, 2))
    for t, s, a in [
        (0, 0, 1), (0, 3, 0), (0, 0, 0),
        (1, 2, 0), (1, 1, 0), (1, 2, 1),
        (2, 3, 1), (2, 0, 1), (2, 2, 0),
    ]:  # fmt: skip
        actions[t, s, a] += 1
    np.testing.assert_array_equal(counts.actions, actions)
    np.testing.assert_array_equal(counts.starts, [[2, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    # cyd is seen in (1, low) at t = 1; ann's last row is at the horizon and no early end
    np.testing.assert_array_equal(counts.ends_seen, [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    # dee decides to hold at t = 1 in (2, low) and is not seen again
    unseen = np.zeros((3, 4, 2))
    unseen[1, 2, 1] = 1
    np.testing.assert_array_equal(counts.ends_unseen, unseen)


def test_mean_field_of_five_shops_by_hand(visits):
    """At t = 1 four shops are seen, one of which no longer decides."""
    panel = shops(visits)
    expected = [[2 / 3, 0, 0, 1 / 3], [1 / 4, 1 / 4, 2 / 4, 0], [1 / 3, 0, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(panel.mean_field(), expected, atol=ROUNDING)
    assert panel.mean_field(prior_count=1.0)[0] == pytest.approx([3 / 7, 1 / 7, 1 / 7, 2 / 7])


def test_initial_distribution_is_the_first_row_with_labels(visits):
    """The start is labelled by state and smoothed like the mean field."""
    start = shops(visits).initial_distribution()
    assert start.dims == ("state",)
    assert start.state.values.tolist() == ["1, low", "1, high", "2, low", "2, high"]
    np.testing.assert_allclose(start.values, [2 / 3, 0, 0, 1 / 3], atol=ROUNDING)
    smoothed = shops(visits).initial_distribution(prior_count=1.0)
    np.testing.assert_allclose(smoothed.values, [3 / 7, 1 / 7, 1 / 7, 2 / 7], atol=ROUNDING)


def test_steps_of_five_shops_by_hand(visits):
    """Observed steps include those into a last row and none from a row without action."""
    steps, n = shops(visits).transition_counts()
    found = {tuple(step): k for step, k in zip(steps.tolist(), n.tolist(), strict=True)}
    # (t, state, action, next): ann three, bob, cyd and dee one each
    assert found == {
        (0, 0, 1, 2): 1, (1, 2, 0, 3): 1, (2, 3, 1, 1): 1,
        (1, 1, 0, 0): 1, (0, 3, 0, 0): 1, (0, 0, 0, 2): 1,
    }  # fmt: skip


@pytest.mark.parametrize("by_time", [False, True])
def test_a_pair_never_followed_is_refused_without_a_prior_count(visits, by_time):
    """No row of zeros becomes a probability: the pairs are named, and the remedy."""
    with pytest.raises(mfg.exceptions.DataError, match="prior_count") as caught:
        shops(visits).estimate_transition(by_time=by_time)
    # seen are (1, low) with both moves, (1, high) raise, (2, low) raise, (2, high) with both;
    # in month 3 only (1, low) with both moves and (2, high) raise
    pooled = ("state='1, high', action='hold'", "state='2, low', action='hold'")
    month = ("state='1, high', action='raise', time=3", "state='1, high', action='hold', time=3")
    assert caught.value.faults[0].what == "state and action never followed by a next state"
    assert caught.value.faults[0].examples[:2] == (month if by_time else pooled)


def test_the_refused_pair_is_the_one_without_steps():
    """With one pair never taken, that pair is named."""
    rows = [("a", 0, 0, "stay"), ("a", 1, 1, "go"), ("a", 2, 0, "stay"), ("a", 3, 1, "stay")]
    rows += [("b", t, s, a) for _, t, s, a in rows]
    rows += [(k, 4, 0, None) for k in "ab"]
    panel = mfg.Trajectories.from_frame(
        pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    )
    with pytest.raises(mfg.exceptions.DataError) as caught:
        panel.estimate_transition()
    assert caught.value.faults[0].examples == ("state=0, action='go'",)


def test_a_smoothed_pair_without_data_is_uniform(visits):
    """A prior count fills a row that nobody shows with equal shares of what is possible."""
    estimate = shops(visits).estimate_transition(prior_count=0.1, support="all")
    never = estimate.probabilities.sel(state="1, high", action="hold")
    np.testing.assert_allclose(never.values, 0.25, atol=ROUNDING)
    # under hold the price went from 1 to 2 and from 2 to 1, and the stock stayed as it was
    seen = shops(visits).estimate_transition(prior_count=0.1)
    never = seen.probabilities.sel(state="1, high", action="hold")
    np.testing.assert_allclose(never.values, [0, 0, 0, 1], atol=ROUNDING)


def test_recoding_permutes_the_counts(visits):
    """Another order of labels permutes the counts and changes nothing else."""
    panel = shops(visits)
    space = StateSpace.from_labels({"stock": ["high", "none", "low"], "price": [2, 1]})
    recoded = panel.recode(space, ["hold", "close", "raise"])
    assert recoded.counts.actions.shape == (3, 6, 3)
    for s, label in enumerate(panel.space.labels):
        price, stock = label.split(", ")
        there = space.labels.index(f"{stock}, {price}")
        for a, action in enumerate(panel.actions):
            b = recoded.actions.index(action)
            here = panel.counts.actions[:, s, a]
            np.testing.assert_array_equal(recoded.counts.actions[:, there, b], here)
            here = panel.counts.ends_unseen[:, s, a]
            np.testing.assert_array_equal(recoded.counts.ends_unseen[:, there, b], here)
        np.testing.assert_array_equal(recoded.counts.starts[:, there], panel.counts.starts[:, s])
    assert recoded.counts.actions.sum() == panel.counts.actions.sum()


def test_recoding_there_and_back_is_the_identity(visits):
    """Recoding keeps a missing last action missing."""
    panel = shops(visits)
    space = StateSpace.from_labels({"stock": ["high", "low"], "price": [2, 1]})
    back = panel.recode(space, ["hold", "raise"]).recode(panel.space, panel.actions)
    np.testing.assert_array_equal(back.state, panel.state)
    np.testing.assert_array_equal(back.action, panel.action)


def test_a_subset_with_repeats_adds_up_its_trajectories(visits):
    """Counts of a bootstrap panel are sums of the trajectories' counts, repeats counted twice."""
    panel = shops(visits)
    keep = np.array([3, 0, 3, 3])
    singles = [panel.subset(np.array([j])).counts for j in range(panel.n_trajectories)]
    for found, parts in zip(panel.subset(keep).counts, zip(*singles, strict=True), strict=True):
        np.testing.assert_array_equal(found, sum(parts[j] for j in keep))
    assert panel.subset(keep).agents.tolist() == panel.agents[keep].tolist()


def test_a_subset_by_mask_keeps_groups(visits):
    """A boolean mask selects trajectories and their groups."""
    visits["chain"] = visits.shop.str.upper()
    panel = shops(visits, groups=["chain"])
    kept = panel.subset(panel.agents != "bob")
    assert kept.groups["chain"].tolist() == [a.upper() for a in kept.agents]
    assert "bob" not in kept.labels
    assert kept.n_decisions == 7


def test_a_subset_of_nobody_is_refused(visits):
    """An empty selection says what is wrong."""
    with pytest.raises(ValueError, match=r"`keep`"):
        shops(visits).subset(np.array([], dtype=int))


def test_shares_of_a_time_without_agents_are_refused(visits):
    """Where a subset leaves a time without agents there is no share, and no NaN."""
    panel = shops(visits)
    eve = np.flatnonzero(panel.agents == "eve")
    with pytest.raises(ValueError, match="no agent"):
        panel.subset(eve).mean_field()


def test_the_audit_describes_the_panel(visits):
    """Sizes, times, entries, exits, gaps in coverage and shares are those of the table."""
    audit = shops(visits).audit()
    expected = {
        "agents": 5,
        "trajectories": 5,
        "decisions": 9,
        "decision times": 3,
        "first time": 3,
        "decisions per trajectory": "1 to 3",
        "trajectories entering late": 2,
        "trajectories ending early": 2,
        "state coordinates": {"price": [1, 2], "stock": ["low", "high"]},
        "states": 4,
        "states never visited": 0,
        # taken: (1, low) both, (1, high) raise, (2, low) both, (2, high) both
        "state and action pairs never taken": 1,
        "state and action pairs taken 1 to 4 times": 7,
        "the thinnest of them": [  # as (1, low, hold) and (2, low, raise) were taken twice
            "1, low, raise: 1",
            "1, high, raise: 1",
            "2, low, hold: 1",
            "2, high, raise: 1",
            "2, high, hold: 1",
        ],
        "labels in fewer than 1 of 1,000 rows": [],
        "action shares": {"raise": 0.5556, "hold": 0.4444},
    }
    assert audit == expected


def test_a_table_written_and_read_again_is_the_same_panel(roads_panel):
    """`to_frame` gives what `from_frame` reads: labels, times, and a last row without action."""
    panel = roads_panel
    names = list(panel.space.coordinates)
    again = mfg.Trajectories.from_frame(
        panel.to_frame(),
        state=names,
        state_labels=panel.space.coordinates,
        action_labels=panel.actions,
    )
    for field in ("time", "state", "action", "offsets"):
        np.testing.assert_array_equal(getattr(again, field), getattr(panel, field))
    assert again.agents.tolist() == panel.agents.tolist()
    assert again.first_time == panel.first_time


def test_a_label_seen_once_in_a_thousand_rows_is_pointed_at():
    """A misspelt label read without declared labels shows in the audit."""
    rows = [(k, t, "low" if k % 2 else "high", "up") for k in range(600) for t in range(3)]
    rows[7] = (*rows[7][:2], "hihg", "up")
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    audit = mfg.Trajectories.from_frame(frame).audit()
    assert audit["labels in fewer than 1 of 1,000 rows"] == ["state='hihg'"]


def test_unavailable_actions_need_no_data_for_their_transition():
    """Rows of pairs that the game rules out are uniform; the others are frequencies."""
    rows = [
        ("a", 0, "l", "x"), ("a", 1, "r", "x"), ("a", 2, "l", None),
        ("b", 0, "r", "x"), ("b", 1, "r", "x"), ("b", 2, "r", None),
        ("c", 0, "l", "y"), ("c", 1, "l", "x"), ("c", 2, "l", None),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame)
    with pytest.raises(mfg.exceptions.DataError, match="never followed"):
        panel.estimate_transition()
    found = panel.estimate_transition(available=[[True, True], [True, False]]).probabilities
    np.testing.assert_allclose(found.sel(state="r", action="y"), [0.5, 0.5])
    np.testing.assert_allclose(found.sel(state="r", action="x"), [1 / 3, 2 / 3])
    np.testing.assert_allclose(found.sel(state="l", action="x"), [0.5, 0.5])


def test_the_last_move_has_a_table_where_the_state_after_it_is_seen():
    """T tables, which a terminal value needs; where some last moves are not seen, T-1 as ever."""
    rng = np.random.default_rng(4)
    rows = [
        (agent, t, rng.integers(2), rng.integers(2) if t < 3 else None)
        for agent in range(60)
        for t in range(4)
    ]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    columns = {"agent": "agent", "time": "time", "state": "state", "action": "action"}
    panel = mfg.Trajectories.from_frame(frame, **columns)
    assert panel.horizon == 3
    estimate = panel.estimate_transition(by_time=True)
    assert estimate.probabilities.sizes["time"] == 3
    here = frame.rename(columns={"state": "s", "action": "a"})
    after = here.assign(x=here.groupby("agent")["s"].shift(-1)).dropna()
    for t, moves in after.groupby("time"):
        shares = pd.crosstab([moves["s"], moves["a"]], moves["x"], normalize="index")
        for (s, a), row in shares.iterrows():
            for x, share in row.items():
                found = estimate.probabilities[int(t), int(s), int(a), int(x)]
                assert found.item() == pytest.approx(share)
    world = mfg.MeanFieldGame(
        states=[0, 1], actions=[0, 1], horizon=3, transition=estimate, initial=[0.5, 0.5]
    )

    def ended(x):
        return mfg.Preferences(0.0, terminal=1.0 * x.state)

    policy = mfg.solve_equilibrium(world, ended, throw=True).value.policy[-1].numpy()
    worth = estimate.probabilities[2, :, :, 1].values
    expected = np.exp(worth) / np.exp(worth).sum(-1, keepdims=True)
    np.testing.assert_allclose(policy, expected, rtol=1e-12)
    cut = mfg.Trajectories.from_frame(frame[(frame["time"] < 3) | (frame["agent"] == 1)], **columns)
    assert cut.estimate_transition(by_time=True).probabilities.sizes["time"] == 2
