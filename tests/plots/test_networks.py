"""The picture of a network shows its weights, degrees, and what types meet."""

import networkx as nx
import numpy as np
import pytest

import mfgppl as mfg
from mfgppl.models import sis_graphon


def test_weights_and_degrees_are_those_of_the_network():
    graph = nx.star_graph(5)
    figure = mfg.plots.plot_network(mfg.networks.audit(mfg.Network(graph)))
    weights, degrees = figure.axes[:2]
    np.testing.assert_array_equal(weights.images[0].get_array(), nx.to_numpy_array(graph))
    heights = [bar.get_height() for bar in degrees.patches]
    assert heights == [0, 5, 0, 0, 0, 1]  # five see the hub, which sees five


def test_large_networks_are_points():
    figure = mfg.plots.plot_network(mfg.networks.audit(mfg.Network(nx.cycle_graph(500))))
    assert not figure.axes[0].images
    assert len(figure.axes[0].lines[0].get_xdata()) == 1000


def test_what_types_meet_over_time():
    """The line is the median over types of the share that varies most."""
    game = sis_graphon.game(positions=6, horizon=5)
    flow = mfg.equilibrium.generate_mean_field(game, np.full((5, 12, 2), 0.5))
    panel = mfg.simulate(game, np.full((5, 12, 2), 0.5), flow, n_agents=600, random_seed=1)
    audit = mfg.networks.audit(game.meets.network, panel)
    axis = mfg.plots.plot_network(audit).axes[2]
    state = int(np.argmax(audit.met.std("type").mean("time").values))
    expected = audit.met.isel(state=state).median("type")
    np.testing.assert_allclose(axis.lines[0].get_ydata(), expected)


def test_another_object_is_refused():
    with pytest.raises(TypeError, match="`audit` must be a NetworkAudit"):
        mfg.plots.plot_network(mfg.Network(nx.path_graph(3)))
