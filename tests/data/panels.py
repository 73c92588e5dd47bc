"""Panels for property tests."""

import pandas as pd
from hypothesis import strategies as st

STATES, ACTIONS, LAST = [0, 1, 2], ["stay", "go"], 6
LABELS = {"state_labels": {"state": STATES}, "action_labels": ACTIONS}


@st.composite
def spells(draw, agent: str) -> list[tuple]:
    """Draw the rows of one agent: one or two runs of times, each perhaps without a last action."""
    first = draw(st.integers(0, LAST - 1))
    times = list(range(first, draw(st.integers(first, LAST)) + 1))
    hole = draw(st.none() | st.sampled_from(times))
    times = [t for t in times if t != hole] or [first]
    rows = []
    for time in times:
        may_lack = time + 1 not in times
        action = draw(st.sampled_from([*ACTIONS, None] if may_lack else ACTIONS))
        rows.append((agent, time, draw(st.sampled_from(STATES)), action))
    return rows


@st.composite
def panels(draw) -> pd.DataFrame:
    """Draw an unbalanced panel in shuffled order, with one agent that is always there."""
    agents = [f"agent {k}" for k in range(draw(st.integers(1, 4)))]
    rows = [row for agent in agents for row in draw(spells(agent))]
    for time in range(LAST + 1):
        rows.append(("anchor", time, draw(st.sampled_from(STATES)), draw(st.sampled_from(ACTIONS))))
    rows = draw(st.permutations(rows))
    return pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
