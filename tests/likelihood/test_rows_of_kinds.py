"""Agents as the unit of a likelihood with kinds."""

import numpy as np
import pytest
from kinds_world import GAME, POOLED, S, model_of, panel, program

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import scores_of

FIRMS = panel(3, n=150)


def test_identical_histories_are_summed_once():
    """Each agent twice: as many histories as before, of twice the weight and log likelihood."""
    once = model_of(2, FIRMS)
    twice = model_of(2, FIRMS.subset(np.tile(np.arange(FIRMS.n_trajectories), 2)))
    before, after = once.law.histories, twice.law.histories
    assert len(after.start) == len(before.start) < 150
    assert after.weight.sum() == 300
    np.testing.assert_array_equal(np.sort(after.weight), np.sort(2 * before.weight))
    value = density_of(once).constrained(density_of(once).program.draw(0)[None])
    height = density_of(once).heights(value)[0]
    assert density_of(twice).heights(value)[0] == pytest.approx(2 * height, rel=1e-12)


def test_sandwiches_are_of_agents_and_clusters():
    """`A^-1 B A^-1 G / (G - 1)`, with the scores of agents or of cities added up by loops."""
    table = FIRMS.to_frame()
    table["city"] = table["agent"] % 10
    table = table[~((table["time"] == 6) & (table["agent"] % 4 == 0))]  # two trajectories of some
    rows = mfg.Trajectories.from_frame(
        table, state="price", state_labels={"price": range(S)},
        action_labels=["down", "none", "up"], gaps="split", groups=["city"],
    )  # fmt: skip
    model = mfg.TrajectoryModel(GAME, program(2), rows, mean_field=POOLED)
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    density = density_of(model)
    scores = scores_of(density, fit.theta)
    assert len(scores) > 150
    bread = np.linalg.inv(-density.second_derivatives(fit.theta, prior=0.0, jacobian=0.0))
    for groups, of in (("agent", rows.agents), ("city", rows.groups["city"])):
        names = list(dict.fromkeys(of))
        summed = np.array([scores[[o == name for o in of]].sum(0) for name in names])
        G = len(names)
        meat = summed.T @ summed * G / (G - 1)
        expected = fit.jacobian @ bread @ meat @ bread @ fit.jacobian.T
        found = fit.cov_params("cluster", groups=groups)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
