"""The energy law where states lie so far apart that weights relative to the richest are zero."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from reference import finite_difference, table_program

import mfgppl as mfg

TIMES, ACTIONS, HEAT = 5, 2, 0.01
GAPS = [0.0, 5.0, 8.0]  # reward units a step; the last is 800 nats a step


def tables(n_pairs, *, chance):
    """Closed pairs of states: an action leads to one of its own pair, surely or not."""
    n = 2 * n_pairs
    P = np.zeros((n, ACTIONS, n))
    for s, a in itertools.product(range(n), range(ACTIONS)):
        first = s // 2 * 2
        P[s, a, first + a] = chance
        P[s, a, first + 1 - a] += 1.0 - chance
    return P


def case(*, chance, sparse=False):
    """A game of pairs, each `GAPS` richer than the first, and a panel that ends in all ways."""
    n_pairs = len(GAPS)
    P = tables(n_pairs, chance=chance)
    game = mfg.MeanFieldGame(
        states={"x": list(range(2 * n_pairs))}, actions=["a0", "a1"], horizon=TIMES,
        transition=scipy.sparse.csr_array(P.reshape(-1, 2 * n_pairs)) if sparse else P,
        initial=np.full(2 * n_pairs, 0.5 / n_pairs), temperature=HEAT,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    reward = 0.02 * rng.normal(size=game.shape) + np.repeat(GAPS, 2)[None, :, None]
    policy = np.full(game.shape, 0.5)
    panel = mfg.simulate(game, policy, np.full((TIMES, 6), 1 / 6), n_agents=24, random_seed=1)
    frame = panel.to_frame()
    cut = frame.agent % 3 == 0  # these are lost before the horizon, some seen at rest
    frame = frame[~(cut & (frame.time > 2))].copy()
    frame.loc[(frame.agent % 6 == 0) & (frame.time == 2), "action"] = None
    labels = {"state_labels": {"x": list(range(6))}, "action_labels": ["a0", "a1"]}
    return game, reward, mfg.Trajectories.from_frame(frame, state="x", **labels)


def paths(P, reward, begin, steps):
    """Log weights of all paths of some steps from a time and state, by enumeration."""
    time, state = begin
    if steps == 0:
        return [0.0]
    found = []
    for a in range(ACTIONS):
        here = reward[time, state, a] / HEAT
        if time == TIMES - 1:
            found.append(here)
            continue
        for x in np.flatnonzero(P[state, a]):
            ahead = paths(P, reward, (time + 1, int(x)), steps - 1)
            found += [here + np.log(P[state, a, x]) + w for w in ahead]
    return found


def log_partition(P, reward, time, state):
    return np.logaddexp.reduce(paths(P, reward, (time, state), TIMES - time))


def enumerated(game, reward, panel, P):
    """The conditional log likelihood of each trajectory, by the sums over its futures."""
    found = []
    for j in range(panel.n_trajectories):
        rows = slice(panel.offsets[j], panel.offsets[j + 1])
        t, s, a = panel.time[rows], panel.state[rows], panel.action[rows]
        acted = a >= 0
        value = reward[t[acted], s[acted], a[acted]].sum() / HEAT
        value -= log_partition(P, reward, t[0], s[0])
        if not acted[-1]:
            value += log_partition(P, reward, t[-1], s[-1])
        elif t[-1] < TIMES - 1:
            ahead = [
                np.log(P[s[-1], a[-1], x]) + log_partition(P, reward, t[-1] + 1, int(x))
                for x in np.flatnonzero(P[s[-1], a[-1]])
            ]
            value += np.logaddexp.reduce(ahead)
        found.append(value)
    return np.array(found)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("chance", [1.0, 0.7])
def test_conditional_energy_equals_enumeration_far_apart(chance, sparse):
    """Kernel, twin, sums by trajectory and the gradient: each pair's law is its own."""
    game, reward, panel = case(chance=chance, sparse=sparse)
    P = tables(len(GAPS), chance=chance)
    model = mfg.TrajectoryModel(
        game, table_program(reward), panel, likelihood="energy", start="conditional"
    )
    law, right = model.law, enumerated(game, reward, panel, P)
    assert panel.counts.ends_seen.sum() > 0
    assert panel.counts.ends_unseen.sum() > 0
    evaluate = law.evaluator()
    value, gradient = evaluate(reward)
    gradient = gradient.copy()
    # rewards of thousands of nats cancel: rounding is relative to them
    assert value == pytest.approx(right.sum(), abs=1e-7)
    point = torch.tensor(reward, requires_grad=True)
    twin = law.log_likelihood(point)
    assert twin.item() == pytest.approx(right.sum(), abs=1e-7)
    (slope,) = torch.autograd.grad(twin, point)
    np.testing.assert_allclose(gradient, slope.numpy(), atol=1e-8 / HEAT)
    numeric = finite_difference(lambda r: evaluate(r)[0], reward, step=1e-4)
    np.testing.assert_allclose(gradient, numeric, atol=2e-5 / HEAT)


def test_log_policy_far_apart_is_that_of_each_pair_alone():
    """A game of one pair has the same energy policy, whatever other pairs there are."""
    game, reward, panel = case(chance=0.7)
    model = mfg.TrajectoryModel(game, table_program(reward), panel, likelihood="energy")
    whole = model.law.log_policy(reward)
    for k in range(len(GAPS)):
        pair = slice(2 * k, 2 * k + 2)
        alone = mfg.MeanFieldGame(
            states={"x": [0, 1]}, actions=["a0", "a1"], horizon=TIMES, initial=[0.5, 0.5],
            transition=tables(1, chance=0.7), temperature=HEAT,
        )  # fmt: skip
        flow = np.full((TIMES, 2), 0.5)
        played = mfg.simulate(alone, np.full((TIMES, 2, 2), 0.5), flow, n_agents=4, random_seed=0)
        one = mfg.TrajectoryModel(
            alone, table_program(reward[:, pair]), played, likelihood="energy", mean_field=flow
        )
        np.testing.assert_allclose(whole[:, pair], one.law.log_policy(reward[:, pair]), atol=1e-9)
