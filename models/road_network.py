"""Commuters on a grid of roads: how much is a minute worth, and how much does company cost?

Cars drive over a grid of one-way streets to one of two destinations, which are their types; some
leave a step later than others. At each crossing a car turns into one of the streets that lead on; a
street takes a step. Streets differ in length and in capacity:

    r = -length l(street) - congestion mu_t(street) / c(street),  arrived: 0

where `mu_t(street)` is the share of all cars, whatever their destination. Streets through the
middle of the grid carry little, so that where congestion is dear many take the way around.

Source: Cabannes, Lauriere, Perolat, Marinier, Girgin, Perrin, Pietquin, Bayen, Goubault and Elie
(2022), "Solving N-player dynamic routing games with congestion: a mean-field approach", AAMAS; the
grid is ours.
"""

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "car", "time": "time", "types": ["to"], "state": "street", "action": "turn"}
TRUTH = {"length": 0.8, "congestion": 1.5}
SIDE, HORIZON = 4, 8
GOALS = {"north": (2, 3), "east": (3, 1)}  # crossings at which cars arrive
SHARES = {"north": 0.55, "east": 0.45}
LATE = 0.4  # share of cars that leave a step later
TURNS = ("north", "east")


def roads() -> nx.DiGraph:
    """Return the streets as edges between crossings, northwards and eastwards."""
    graph = nx.DiGraph()
    for a in range(SIDE):
        for b in range(SIDE):
            for end in ((a, b + 1), (a + 1, b)):
                if max(end) < SIDE:
                    through = 0 < a + b < 2 * SIDE - 3 and abs(end[0] - end[1]) <= 1
                    length = 1 + 0.5 * ((2 * a + b + (end[0] > a)) % 3)
                    graph.add_edge((a, b), end, length=length, capacity=0.4 if through else 1.0)
    return graph


def game() -> mfg.MeanFieldGame:
    """Return the game; a car turns north or east where both lead on to where it goes."""
    graph = roads()
    ways = list(graph.edges)
    names = ["asleep", "home", *(f"{a}{b}-{c}{d}" for (a, b), (c, d) in ways), "arrived"]
    place = {way: k + 2 for k, way in enumerate(ways)}
    end, n = len(names) - 1, len(names)
    tables = {to: np.zeros((n, 2, n)) for to in GOALS}
    allowed = {to: np.zeros((n, 2), dtype=bool) for to in GOALS}
    for to, goal in GOALS.items():
        for state, here in {1: (0, 0), **{place[way]: way[1] for way in ways}}.items():
            north, east = (here[0], here[1] + 1), (here[0] + 1, here[1])
            for turn, there in enumerate((north, east)):
                leads = here != goal and there in graph and nx.has_path(graph, there, goal)
                tables[to][state, turn, place[here, there] if leads else end] = 1.0
                allowed[to][state, turn] = leads
        tables[to][0, :, 1] = tables[to][end, :, end] = 1.0
        allowed[to][~allowed[to].any(1), 0] = True  # nothing to decide
    start = np.zeros((len(GOALS), n))
    for k, share in enumerate(SHARES.values()):
        start[k, :2] = LATE * share, (1 - LATE) * share
    lengths, rooms = (
        np.array([other, other, *(graph.edges[way][name] for way in ways), other])
        for name, other in (("length", 0.0), ("capacity", 1.0))
    )
    return mfg.MeanFieldGame(
        types={"to": list(GOALS)},
        states={"street": names},
        actions=TURNS,
        horizon=HORIZON,
        transition=tables,
        initial=start.ravel(),
        available=allowed,
        features={"length": ("street", lengths), "room": ("street", rooms)},
    )


def reward(x):
    """Return the cost of length, and of company relative to a street's capacity."""
    length = pyro.sample("length", dist.HalfNormal(2.0))
    congestion = pyro.sample("congestion", dist.Normal(0.0, 5.0))
    on_the_way = 1 - x.street.isin(["asleep", "home", "arrived"])
    return -length * x.length - congestion * on_the_way * x.density / x.room


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
