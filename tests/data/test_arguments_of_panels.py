"""Wrong arguments of a panel's methods are refused at the door, with the word that was meant."""

import numpy as np
import pandas as pd
import pytest
import torch

import mfgppl as mfg
from mfgppl._arguments import boolean, not_negative, positive_int, real_between

FRAME = pd.DataFrame(
    {"agent": np.repeat(list("abc"), 3), "time": [0, 1, 2] * 3, "state": [0, 1, 0] * 3}
).assign(action="go", kind=np.repeat(list("xyx"), 3))
PANEL = mfg.Trajectories.from_frame(FRAME, groups=["kind"])
COUNTED = mfg.CountedPanel.from_trajectories(PANEL)


@pytest.mark.parametrize("panel", [PANEL, COUNTED])
@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda p: p.mean_field(prior_cuont=1), "prior_count"),
        (lambda p: p.occupancy(priorcount=1), "prior_count"),
        (lambda p: p.initial_distribution(prior=1), "prior_count"),
        (lambda p: p.estimate_transition(suport="all"), "support"),
        (lambda p: p.recode(spaces=p.space, actions=p.actions), "space"),
    ],
)
def test_misspelt_keywords_of_any_panel(panel, call, meant):
    """The keyword that was meant is suggested."""
    with pytest.raises(TypeError, match=f"did you mean `{meant}`"):
        call(panel)


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: PANEL.to_frame(agnet="x"), "agent"),
        (lambda: PANEL.subset(keeps=[0]), "keep"),
        (lambda: mfg.CountedPanel.from_trajectories(panels=PANEL), "panel"),
        (lambda: mfg.Trajectories.from_frame(FRAME, group=["kind"]), "groups"),
    ],
)
def test_misspelt_keywords_of_trajectories(call, meant):
    """What needs rows suggests its keywords too."""
    with pytest.raises(TypeError, match=f"did you mean `{meant}`"):
        call()


@pytest.mark.parametrize(
    ("keep", "error", "words"),
    [
        ([0.0, 1.0], TypeError, "positions, or a mask.*float64"),
        ("ab", TypeError, "positions, or a mask"),
        ([True, False], ValueError, "one entry per trajectory, 3; got 2"),
        ([False] * 3, ValueError, "selects no trajectory"),
        ([0, 3], ValueError, "positions below 3; got 3"),
        ([[0, 1]], TypeError, r"shape \(1, 2\)"),
    ],
)
def test_wrong_selections_of_trajectories(keep, error, words):
    """A selection is a list of positions or a mask of the right length."""
    with pytest.raises(error, match=words):
        PANEL.subset(keep)


def test_right_selections_of_trajectories():
    """Positions from the end, repeats, tensors and labelled masks select as they say."""
    assert PANEL.subset([-1, 0, 0]).agents.tolist() == ["c", "a", "a"]
    assert PANEL.subset(torch.tensor([1])).agents.tolist() == ["b"]
    assert PANEL.subset(pd.Series(PANEL.agents != "b")).agents.tolist() == ["a", "c"]


def test_wrong_types():
    """Switches are booleans, and a panel is recoded to a space."""
    with pytest.raises(TypeError, match="`by_time` must be True or False; got 'no'"):
        PANEL.estimate_transition(prior_count=1.0, by_time="no")
    with pytest.raises(TypeError, match="`space` must be a StateSpace; got list"):
        PANEL.recode([0, 1], ["go"])
    with pytest.raises(TypeError, match="`panel` must be a Trajectories; got DataFrame"):
        mfg.CountedPanel.from_trajectories(FRAME)
    with pytest.raises(ValueError, match="'state' twice"):
        PANEL.to_frame(agent="state")


@pytest.mark.parametrize(
    "value", [np.array([3]), np.array(3.0), torch.tensor(3.0), torch.tensor([3, 4]), "3", 3.0, True]
)
def test_integers_are_integers(value):
    """Arrays and tensors of no single integer are refused as the argument, not by their library."""
    with pytest.raises(TypeError, match="`draws` must be an integer; got"):
        positive_int("draws", value)


def test_single_integers_and_numbers_of_libraries():
    """A number of numpy or torch is a number; text is none."""
    assert [positive_int("n", v) for v in (np.int64(3), np.array(3), torch.tensor(3))] == [3] * 3
    assert (
        not_negative("x", torch.tensor(0.5)) == real_between("x", np.float32(0.5), above=0) == 0.5
    )
    assert boolean("f", np.True_) is True
    for value in ("0.5", b"1", [1.0, 2.0], torch.tensor([1.0, 2.0]), None):
        with pytest.raises(TypeError, match="`x` must be a number"):
            not_negative("x", value)
        with pytest.raises(TypeError, match="`x` must be a number"):
            real_between("x", value, above=0.0)
