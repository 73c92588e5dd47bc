"""Who leaves and enters a panel, and whether it changes the shares of the crowd."""

import numpy as np
import pandas as pd
import pytest
from games import ROUNDING

import mfgppl as mfg
from mfgppl.data.composition import (
    composition_changes,
    entrants,
    leavers,
    turnover_message,
)

LABELS = {"state_labels": {"state": ["closed", "open"]}, "action_labels": ["go", "stay"]}


def shops(n_agents: int = 200, n_times: int = 6, *, seed: int = 0) -> pd.DataFrame:
    """Return a balanced panel of shops that close for good, one in ten a period."""
    rng, rows = np.random.default_rng(seed), []
    for agent in range(n_agents):
        state = "open"
        for time in range(n_times):
            rows.append((agent, time, state, ["go", "stay"][int(rng.integers(2))]))
            state = "closed" if rng.random() < 0.1 else state
    return pd.DataFrame(rows, columns=["agent", "time", "state", "action"])


def closed_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the first row of each shop in which it is closed, and none after it."""
    before = frame.groupby("agent").state.transform(lambda s: (s == "closed").cumsum())
    return frame[before <= 1]


def read(frame: pd.DataFrame) -> mfg.Trajectories:
    return mfg.Trajectories.from_frame(frame, **LABELS)


def test_turnover_by_hand():
    """Of four, one leaves in a state that two share; of three, one who enters is alone in hers."""
    rows = [
        ("a", 0, "open"), ("a", 1, "open"), ("a", 2, "open"),
        ("b", 0, "open"), ("b", 1, "open"), ("b", 2, "open"),
        ("c", 0, "closed"), ("c", 1, "open"), ("c", 2, "open"),
        ("d", 0, "closed"),
        ("e", 1, "closed"), ("e", 2, "open"),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["agent", "time", "state"]).assign(action="go")
    panel = read(frame)
    gone = leavers(panel)
    np.testing.assert_allclose(gone.gone, [1, 0])
    np.testing.assert_allclose(gone.expected, [1 / 2, 1 / 2], atol=ROUNDING)
    np.testing.assert_allclose(gone.shift, [1 / 3 - 1 / 2, 2 / 3 - 1 / 2], atol=ROUNDING)
    assert gone.distance == pytest.approx(1 / 6, abs=ROUNDING)
    # sum (O - E)^2 / E is 1, with one degree of freedom: beyond one standard deviation
    assert gone.chance == pytest.approx(0.31731, abs=1e-5)
    come = entrants(panel)
    np.testing.assert_allclose(come.gone, [1, 0])
    np.testing.assert_allclose(come.expected, [1 / 4, 3 / 4], atol=ROUNDING)
    np.testing.assert_allclose(come.shift, [1 / 4, -1 / 4], atol=ROUNDING)
    assert not gone.is_selective  # of one who leaves there is no law
    counted = mfg.CountedPanel.from_trajectories(panel)
    np.testing.assert_array_equal(leavers(counted).shift, gone.shift)


def test_shops_that_are_dropped_when_closed_are_said():
    """The sentence counts those who leave, names their state, and says how far the flow moves."""
    frame = closed_once(shops())
    (sentence,) = composition_changes(read(frame))
    last = frame.groupby("agent").time.max()
    n = int((last < 5).sum())
    assert f"{n} of 200 trajectories end before the last decision time, {n} of them in" in sentence
    assert "state 'closed'" in sentence


def test_late_entrants_in_one_state_are_said():
    """Shops that are listed once they have closed enter selectively."""
    frame = shops()
    late = frame.groupby("agent").state.transform(lambda s: s == "closed")
    only = frame.agent % 2 == 0
    (sentence,) = composition_changes(read(frame[late | only]))
    assert "begin after the first time" in sentence


def test_a_balanced_panel_and_a_smaller_one_at_random_are_not():
    """Those who leave by chance, even half of all, change the shares by noise alone."""
    frame, rng = shops(), np.random.default_rng(1)
    assert composition_changes(read(frame)) == ()
    for _ in range(20):
        stay = rng.integers(1, 12, size=200)
        assert composition_changes(read(frame[frame.time <= stay[frame.agent]])) == ()


def test_a_few_in_a_large_crowd_are_not():
    """A selection that moves the shares by less than a hundredth is left unsaid."""
    frame = shops(3000, 3)
    closed = frame[(frame.state == "closed") & (frame.time == 1)].agent.unique()[:15]
    kept = frame[~(frame.agent.isin(closed) & (frame.time == 2))]
    assert leavers(read(kept)).chance < 1e-6
    assert composition_changes(read(kept)) == ()


def test_many_who_come_and_go_are_counted():
    """More than a tenth of the trajectories, by chance or not: the sentence has both numbers."""
    frame = shops(100)
    assert turnover_message(read(frame)) is None
    ends, starts = np.full(100, 5), np.zeros(100, dtype=int)
    ends[:10], starts[50:60] = 2, 1
    few = read(frame[(frame.time <= ends[frame.agent]) & (frame.time >= starts[frame.agent])])
    assert turnover_message(few) is None
    ends[10] = 3
    many = read(frame[(frame.time <= ends[frame.agent]) & (frame.time >= starts[frame.agent])])
    for panel in (many, mfg.CountedPanel.from_trajectories(many)):
        sentence = turnover_message(panel)
        assert "closed population" in sentence
        assert "10 of 100 trajectories begin after the first time, 11 end before" in sentence
        assert "absorbing" in sentence
    assert turnover_message(many.pooled()) is None


def test_those_carried_forward_do_not_end():
    """Shops dropped once closed are a closed population if closing is for good."""
    frame = closed_once(shops())
    assert "end before the last decision time" in turnover_message(read(frame))
    panel = mfg.Trajectories.from_frame(frame, **LABELS, absorbing={"state": "closed"})
    assert turnover_message(panel) is None
