"""Finite populations: agents who meet their own shares, and how far they are from the limit."""

import numpy as np
import pytest
import torch
from equilibrium.kinds import earned, flow_of, made, pay, random_policy, rewards_along, tables_along
from games import ROADS_TRUTH, avoid_crowds, epidemic, fear, lone, random_rows, two_roads

import mfgppl as mfg

ROUNDING = 1e-10  # sums of a few dozen float64 numbers
STANDARD_ERRORS = 5.0  # of a Monte Carlo mean
FEAR = {"illness": 2.0, "distance": 0.3}


def echo(**changes):
    """Return a game whose next state is a cycle further if the crowd is where one stands, and
    else back at the first state: one agent alone goes round for ever.
    """

    def transition(crowd, time):
        forward = torch.roll(torch.eye(3, dtype=torch.float64), 1, dims=1)
        back = torch.eye(3, dtype=torch.float64)[0].expand(3, 3)
        company = (crowd.reshape(3, -1).sum(1) > 0.999).to(torch.float64)[:, None]
        return (company * forward + (1 - company) * back)[:, None]

    arguments = {
        "states": [0, 1, 2], "actions": ["go"], "horizon": 7, "transition": transition,
        "initial": [1.0, 0.0, 0.0],
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


@pytest.mark.parametrize("joint", [False, True])
def test_one_agent_is_its_own_crowd(joint):
    """Alone, the dynamics see a point mass where the agent stands, so that it goes round."""
    panel = mfg.simulate(
        echo(joint=joint), np.ones((7, 3, 1)), "empirical", n_agents=1, random_seed=1
    )
    assert panel.state.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_agents_that_are_not_together_fall_back():
    """Two agents at different places see half the crowd each, and go back to the first state; from
    there on they are together and go round.
    """
    game = echo(initial=[0.5, 0.5, 0.0])
    for seed in range(20):
        panel = mfg.simulate(game, np.ones((7, 3, 1)), "empirical", n_agents=2, random_seed=seed)
        rows = panel.state.reshape(2, 7)
        if rows[0, 0] != rows[1, 0]:
            assert rows[:, 1:].tolist() == [[0, 1, 2, 0, 1, 2]] * 2
            return
    pytest.fail("two agents never began apart")


@pytest.mark.parametrize("kind", ["fixed", "by time", "masked", "sparse", "moving", "moving sparse",
                                  "joint moving"])  # fmt: skip
def test_a_large_population_is_near_the_limit(kind):
    """Of 4,000 agents the shares of states and actions are near the flow and the policy."""
    game = made(kind, horizon=4)
    policy = random_policy(game, 3)
    panel = mfg.simulate(game, policy, "empirical", n_agents=4000, random_seed=2)
    flow = flow_of(game, policy)
    shares = flow.sum(-1) if game.joint else flow
    occupancy = shares[:, :, None] * policy
    # the crowd's own noise moves the dynamics: twice the error of independent agents
    slack = 2 * STANDARD_ERRORS * np.sqrt(occupancy * (1 - occupancy) / 4000) + ROUNDING
    assert (np.abs(panel.occupancy() - occupancy) <= slack).all()
    assert (panel.counts.actions[:, ~game.available.numpy()] == 0).all()


def test_agents_react_to_the_crowd_they_meet():
    """A policy of the shares and the time: those on the fuller road turn, so all agents change
    roads at each step where they begin together.
    """
    seen = []

    def leave(crowd, time):
        seen.append((crowd.tolist(), time))
        turn = (crowd > 0.5).to(torch.float64)
        return torch.stack([1 - turn, turn], dim=1)

    game = two_roads(initial=[1.0, 0.0])
    panel = mfg.simulate(game, leave, "empirical", n_agents=5, random_seed=1)
    assert panel.state.reshape(5, 4).tolist() == [[0, 1, 0, 1]] * 5
    assert seen == [([1, 0], 0), ([0, 1], 1), ([1, 0], 2), ([0, 1], 3)]


@pytest.mark.parametrize(
    ("policy", "flow", "words"),
    [
        (lambda crowd, t: np.ones((2, 2)) / 2, np.ones((4, 2)) / 2, "needs mean_field='empirical'"),
        (lambda crowd, t: np.ones((2, 2)), "empirical", "at time 0"),
        (lambda crowd, t: np.ones((3, 2)) / 2, "empirical", r"\(S, A\) = \(2, 2\)"),
        (lambda crowd, t: np.full((2, 2), np.nan), "empirical", "shares of actions"),
        (np.ones((4, 2, 2)) / 2, "equilibrium", "a flow or 'empirical'; got 'equilibrium'"),
        (np.ones((4, 2, 2)) / 2, np.ones((4, 2)), "must sum to 1"),
        (np.ones((3, 2, 2)) / 2, "empirical", r"\(4, 2, 2\)"),
    ],
)
def test_combinations_that_cannot_be_are_refused(policy, flow, words):
    """Policies and flows that do not fit each other raise a ValueError that names them."""
    with pytest.raises(ValueError, match=words):
        mfg.simulate(two_roads(), policy, flow, n_agents=3, random_seed=1)


def test_times_belong_to_stationary_games():
    """Without a horizon the number of times is needed; with one, another is refused."""
    endless = two_roads(horizon=None, discount=0.9)
    policy, flow = np.ones((1, 2, 2)) / 2, np.ones((1, 2)) / 2
    with pytest.raises(ValueError, match="n_times"):
        mfg.simulate(endless, policy, flow, n_agents=3, random_seed=1)
    for seen in (flow, "empirical"):
        panel = mfg.simulate(endless, policy, seen, n_agents=3, random_seed=1, n_times=6)
        assert (panel.horizon, panel.n_decisions) == (6, 18)
    with pytest.raises(ValueError, match="horizon is 4"):
        mfg.simulate(
            two_roads(), np.ones((4, 2, 2)) / 2, "empirical", n_agents=3, random_seed=1, n_times=5
        )
    with pytest.raises(ValueError, match="needs a game with a horizon"):
        mfg.equilibrium.finite_population(
            endless, lambda x: x.density, policy, n_agents=[2], random_seed=1
        )


def test_a_stationary_panel_keeps_to_its_distribution():
    """Begun at the distribution that the policy keeps, all times have the same shares."""
    leaky = random_rows(2, 2, 2, 2)
    policy = random_rows(3, 1, 2, 2)
    kept = mfg.equilibrium.generate_mean_field(
        two_roads(horizon=None, discount=0.9, transition=leaky), policy
    )
    game = two_roads(horizon=None, discount=0.9, transition=leaky, initial=kept[0].numpy())
    panel = mfg.simulate(game, policy, kept, n_agents=4000, random_seed=3, n_times=5)
    share = float(kept[0, 0])
    slack = STANDARD_ERRORS * np.sqrt(share * (1 - share) / 4000)
    np.testing.assert_allclose(panel.mean_field()[:, 0], share, atol=slack)


@pytest.mark.parametrize("flow", ["given", "empirical"])
def test_the_seed_decides_the_population(flow):
    """The same seed gives the same rows, another seed others."""
    game = epidemic()
    policy = random_policy(game, 1)
    seen = flow_of(game, policy) if flow == "given" else "empirical"
    one, same, other = (
        mfg.simulate(game, policy, seen, n_agents=40, random_seed=k) for k in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.state, same.state)
    np.testing.assert_array_equal(one.action, same.action)
    assert (one.state != other.state).any()


def test_gaps_shrink_with_the_root_of_the_population():
    """Sixteen times as many agents are four times nearer to the limit, within Monte Carlo error,
    and their average return does not differ from the limit's beyond it.
    """
    game = epidemic()
    policy = mfg.solve_equilibrium(game, fear, parameters=FEAR).value.policy
    table = mfg.equilibrium.finite_population(
        game, fear, policy, parameters=FEAR, n_agents=[50, 800], random_seed=5, n_worlds=60
    )
    assert table.index.tolist() == [50, 800]
    small, large = table.loc[50], table.loc[800]
    error = np.hypot(small.flow_se / small.flow_gap, large.flow_se / large.flow_gap)
    ratio = small.flow_gap / large.flow_gap
    assert abs(ratio / 4 - 1) <= STANDARD_ERRORS * error
    assert large.flow_gap > 0
    # a bias of the order of one over the number of agents is within the error of 60 populations
    assert (table.return_gap.abs() <= STANDARD_ERRORS * table.return_se).all()
    assert small.return_se > large.return_se


@pytest.mark.parametrize("kind", ["fixed", "joint"])
def test_gaps_are_the_panels_own(kind):
    """Gaps average over populations what loops over the panels of the same seeds give."""
    game = made(kind, horizon=3)
    policy = random_policy(game, 4)
    table = mfg.equilibrium.finite_population(
        game, pay, policy, n_agents=[6, 9], random_seed=8, n_worlds=3
    )
    flow = flow_of(game, policy)
    limit = earned(game, rewards_along(game, flow), tables_along(game, flow), policy)
    shares = flow.sum(-1) if game.joint else flow
    seeds = np.random.SeedSequence(8).spawn(2)
    for n, seed in zip((6, 9), seeds, strict=True):
        gaps = []
        for state in seed.generate_state(3):
            panel = mfg.simulate(game, policy, "empirical", n_agents=n, random_seed=int(state))
            met = panel.occupancy() if game.joint else panel.mean_field()
            reward = rewards_along(game, met)
            rows = zip(panel.time, panel.state, panel.action, strict=True)
            mean = sum(game.discount**t * reward[t, s, a] for t, s, a in rows) / n
            off = np.abs(panel.mean_field() - shares).sum(1).mean()
            gaps.append((off, mean - limit))
        mean, error = np.mean(gaps, 0), np.std(gaps, 0, ddof=1) / np.sqrt(3)
        expected = [mean[0], error[0], mean[1], error[1]]
        columns = ["flow_gap", "flow_se", "return_gap", "return_se"]
        np.testing.assert_allclose(table.loc[n, columns], expected, atol=ROUNDING)


def test_a_population_without_choice_is_the_limit():
    """Size 1: one state and one action leave no gap."""
    table = mfg.equilibrium.finite_population(
        lone(), lambda x: x.density, np.ones((1, 1, 1)), n_agents=[1, 3], random_seed=1, n_worlds=2
    )
    np.testing.assert_array_equal(table.to_numpy(), 0.0)


def test_the_seed_decides_the_gaps():
    """The same seed gives the same table, another seed another."""
    policy = np.ones((4, 2, 2)) / 2
    one, same, other = (
        mfg.equilibrium.finite_population(
            two_roads(), avoid_crowds, policy, parameters=ROADS_TRUTH, n_agents=[5],
            random_seed=k, n_worlds=2,
        )
        for k in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(one, same)
    assert (one.to_numpy() != other.to_numpy()).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_agents": [0]}, "n_agents"),
        ({"n_worlds": 1}, "n_worlds"),
        ({"random_seed": -1}, "random_seed"),
        ({"policy": np.ones((4, 2, 2))}, "shares of actions"),
        ({"parameters": {}}, "lack"),
    ],
)
def test_populations_that_cannot_be_are_refused(change, words):
    """Sizes, seeds, policies and parameters that do not fit raise a ValueError."""
    arguments = {
        "policy": np.ones((4, 2, 2)) / 2, "parameters": ROADS_TRUTH, "n_agents": [3],
        "random_seed": 1, "n_worlds": 2,
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        mfg.equilibrium.finite_population(two_roads(), avoid_crowds, **(arguments | change))
